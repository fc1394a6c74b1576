"""Parse `StepError.what` into the hook, path and target of an attachment, as named in diagnose. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attachment:
    """How a program is attached: the hook, the path through the kernel, and the target; empty: unknown."""

    hook: str = ""
    path: str = ""
    target: str = ""
    #: the program's type, when the hook accepts only one
    kind: str = ""


#: pattern of a step's name -> its attachment; the pattern's groups are fields
_ATTACHMENTS = [
    # libbpf reads the number of a named tracepoint from tracefs; with the number alone tracefs is not used
    (r"tracepoint (?P<target>\d+)", Attachment("tracepoint", "perf")),
    (r"tracepoint (?P<target>.+)", Attachment("tracepoint", "tracefs")),
    (r"kprobe_events (?P<target>.+)", Attachment("kprobe", "tracefs")),
    (r"kprobe (?P<target>.+)", Attachment("kprobe", "perf")),
    (r"uprobe (?P<target>.+)", Attachment("uprobe", "perf")),
    (r"(software event|BPF output)", Attachment("perf_event", "perf")),
    (r"perf_event link", Attachment("perf_event", "link")),
    (r"kprobe\.multi link", Attachment("kprobe.multi", "link")),
    (r"kprobe\.multi (?P<target>.+)", Attachment("kprobe.multi", "link")),
    (r"netkit_(primary|peer) link", Attachment("netkit", "link")),
    (r"(usdt|uretprobe|u(ret)?probe\.multi) (?P<target>.+)", Attachment("uprobe", "perf")),
    (r"(iterator|struct_ops) (?P<target>.+)", Attachment("", "link")),
    (r"XDP link on (?P<target>.+)|xdp link", Attachment("XDP", "link")),
    (r"XDP on (?P<target>.+)", Attachment("XDP", "netlink")),
    (r"tcx on (?P<target>.+)|tcx_(in|e)gress link", Attachment("tcx", "tcx")),
    (r"clsact qdisc|tc filter", Attachment("", "clsact")),
    (r"socket", Attachment("", "setsockopt")),
    (r"cgroup_inet_(in|e)gress link", Attachment("", "link", kind="cgroup_skb")),
    (r"cgroup_inet_(in|e)gress", Attachment("", "prog_attach", kind="cgroup_skb")),
    (r"(?P<target>(cgroup|sk|lsm)_\w+)", Attachment("", "prog_attach")),
    (r"raw tracepoint (?P<target>.+)|\w+ link", Attachment("", "link")),
]


def attachment(what: str) -> Attachment:
    """Return the attachment that a step's name describes; for any other name only the name as target."""
    for pattern, known in _ATTACHMENTS:
        if named := re.fullmatch(pattern, what):
            return Attachment(known.hook, known.path, named.groupdict().get("target") or "", known.kind)
    return Attachment(target=what)
