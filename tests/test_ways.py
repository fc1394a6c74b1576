"""Where a step was to attach, from what it is called."""

from __future__ import annotations

import pytest

from kernel_matrix.guest.bpf.ways import Way, way


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("kprobe do_nanosleep", Way("kprobe", "perf", "do_nanosleep")),
        ("kprobe_events do_nanosleep", Way("kprobe", "tracefs", "do_nanosleep")),
        ("uprobe /lib/x.so+0x10", Way("uprobe", "perf", "/lib/x.so+0x10")),
        ("tracepoint sched:sched_switch", Way("tracepoint", "tracefs", "sched:sched_switch")),
        ("tracepoint 123", Way("tracepoint", "perf", "123")),
        ("software event", Way("perf_event", "perf")),
        ("BPF output", Way("perf_event", "perf")),
        ("perf_event link", Way("perf_event", "link")),
        ("kprobe.multi link", Way("kprobe.multi", "link")),
        ("XDP link on 2", Way("XDP", "link", "2")),
        ("xdp link", Way("XDP", "link")),
        ("XDP on 2, <XdpFlags.NONE: 0>", Way("XDP", "netlink", "2, <XdpFlags.NONE: 0>")),
        ("tcx on 2", Way("tcx", "tcx", "2")),
        ("tcx_ingress link", Way("tcx", "tcx")),
        ("clsact qdisc", Way("", "clsact")),
        ("tc filter", Way("", "clsact")),
        ("socket", Way("", "setsockopt")),
        ("cgroup_inet_ingress", Way("", "prog_attach", kind="cgroup_skb")),
        ("cgroup_inet_egress link", Way("", "link", kind="cgroup_skb")),
        ("cgroup_getsockopt", Way("", "prog_attach", "cgroup_getsockopt")),
        ("cgroup_inet4_connect link", Way("", "link")),
        ("sk_msg_verdict", Way("", "prog_attach", "sk_msg_verdict")),
        ("sk_lookup link", Way("", "link")),
        ("raw tracepoint sys_enter", Way("", "link", "sys_enter")),
        ("lsm_mac link", Way("", "link")),
        ("trace_execve", Way(target="trace_execve")),
        ("", Way()),
    ],
)
def test_a_step_says_where_it_was_to_attach(what: str, expected: Way) -> None:
    assert way(what) == expected
