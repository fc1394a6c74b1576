"""Where a step was to attach, from what it is called."""

from __future__ import annotations

import pytest

from kernel_matrix.guest.bpf.diagnosis.attachments import Attachment, attachment


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("kprobe do_nanosleep", Attachment("kprobe", "perf", "do_nanosleep")),
        ("kprobe_events do_nanosleep", Attachment("kprobe", "tracefs", "do_nanosleep")),
        ("uprobe /lib/x.so+0x10", Attachment("uprobe", "perf", "/lib/x.so+0x10")),
        ("tracepoint sched:sched_switch", Attachment("tracepoint", "tracefs", "sched:sched_switch")),
        ("tracepoint 123", Attachment("tracepoint", "perf", "123")),
        ("software event", Attachment("perf_event", "perf")),
        ("BPF output", Attachment("perf_event", "perf")),
        ("perf_event link", Attachment("perf_event", "link")),
        ("kprobe.multi link", Attachment("kprobe.multi", "link")),
        ("XDP link on 2", Attachment("XDP", "link", "2")),
        ("xdp link", Attachment("XDP", "link")),
        ("XDP on 2, <XdpFlags.NONE: 0>", Attachment("XDP", "netlink", "2, <XdpFlags.NONE: 0>")),
        ("tcx on 2", Attachment("tcx", "tcx", "2")),
        ("tcx_ingress link", Attachment("tcx", "tcx")),
        ("clsact qdisc", Attachment("", "clsact")),
        ("tc filter", Attachment("", "clsact")),
        ("socket", Attachment("", "setsockopt")),
        ("cgroup_inet_ingress", Attachment("", "prog_attach", kind="cgroup_skb")),
        ("cgroup_inet_egress link", Attachment("", "link", kind="cgroup_skb")),
        ("cgroup_getsockopt", Attachment("", "prog_attach", "cgroup_getsockopt")),
        ("cgroup_inet4_connect link", Attachment("", "link")),
        ("sk_msg_verdict", Attachment("", "prog_attach", "sk_msg_verdict")),
        ("sk_lookup link", Attachment("", "link")),
        ("raw tracepoint sys_enter", Attachment("", "link", "sys_enter")),
        ("lsm_mac link", Attachment("", "link")),
        ("trace_execve", Attachment(target="trace_execve")),
        ("", Attachment()),
    ],
)
def test_a_step_says_where_it_was_to_attach(what: str, expected: Attachment) -> None:
    assert attachment(what) == expected
