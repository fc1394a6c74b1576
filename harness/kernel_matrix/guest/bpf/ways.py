"""Parse `StepError.what` into the hook, path and target of an attachment, as named in diagnose. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Way:
    """The way a program is attached: its hook, the path through the kernel, and the target; empty: unknown."""

    hook: str = ""
    path: str = ""
    target: str = ""
    #: the program's type, when the hook accepts only one
    kind: str = ""


#: pattern of a step's name -> its way; the pattern's groups are fields
_WAYS = [
    # libbpf reads the number of a named tracepoint from tracefs; with the number alone tracefs is not used
    (r"tracepoint (?P<target>\d+)", Way("tracepoint", "perf")),
    (r"tracepoint (?P<target>.+)", Way("tracepoint", "tracefs")),
    (r"kprobe_events (?P<target>.+)", Way("kprobe", "tracefs")),
    (r"kprobe (?P<target>.+)", Way("kprobe", "perf")),
    (r"uprobe (?P<target>.+)", Way("uprobe", "perf")),
    (r"(software event|BPF output)", Way("perf_event", "perf")),
    (r"perf_event link", Way("perf_event", "link")),
    (r"kprobe\.multi link", Way("kprobe.multi", "link")),
    (r"XDP link on (?P<target>.+)|xdp link", Way("XDP", "link")),
    (r"XDP on (?P<target>.+)", Way("XDP", "netlink")),
    (r"tcx on (?P<target>.+)|tcx_(in|e)gress link", Way("tcx", "tcx")),
    (r"clsact qdisc|tc filter", Way("", "clsact")),
    (r"socket", Way("", "setsockopt")),
    (r"cgroup_inet_(in|e)gress link", Way("", "link", kind="cgroup_skb")),
    (r"cgroup_inet_(in|e)gress", Way("", "prog_attach", kind="cgroup_skb")),
    (r"(?P<target>(cgroup|sk|lsm)_\w+)", Way("", "prog_attach")),
    (r"raw tracepoint (?P<target>.+)|\w+ link", Way("", "link")),
]


def way(what: str) -> Way:
    """Return the way that a step's name describes; for any other name only the name as target."""
    for pattern, known_way in _WAYS:
        if named := re.fullmatch(pattern, what):
            return Way(known_way.hook, known_way.path, named.groupdict().get("target") or "", known_way.kind)
    return Way(target=what)
