"""Where and how a step was to attach, from what `StepError.what` calls it, in the words of diagnose. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Way:
    """A hook, by which path, and what was named there; empty: it does not say."""

    hook: str = ""
    path: str = ""
    target: str = ""
    #: the program's type, where the hook takes but one
    kind: str = ""


#: how a step is called -> where that is; groups of the name are fields
_WAYS = [
    # libbpf reads the number of a tracepoint that has a name; what already has the number does not
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
    """Return where a step was to attach; of what is no such name only the name."""
    for pattern, found in _WAYS:
        if named := re.fullmatch(pattern, what):
            return Way(found.hook, found.path, named.groupdict().get("target") or "", found.kind)
    return Way(target=what)
