"""What libbpf takes a program for by the name of its section: type, attach type, and what it is attached to. Pure.

The table is that of libbpf's src/libbpf.c (section_defs), with the names of linux/bpf.h. ``x+`` is ``x`` or
``x/TARGET``; without the sign it is that name alone.
"""

from __future__ import annotations

from dataclasses import dataclass

_TABLE = """
socket SOCKET_FILTER
sk_reuseport/migrate SK_REUSEPORT SK_REUSEPORT_SELECT_OR_MIGRATE
sk_reuseport SK_REUSEPORT SK_REUSEPORT_SELECT
kprobe+ KPROBE
uprobe+ KPROBE
uprobe.s+ KPROBE
kretprobe+ KPROBE
uretprobe+ KPROBE
uretprobe.s+ KPROBE
kprobe.multi+ KPROBE TRACE_KPROBE_MULTI
kretprobe.multi+ KPROBE TRACE_KPROBE_MULTI
kprobe.session+ KPROBE TRACE_KPROBE_SESSION
uprobe.multi+ KPROBE TRACE_UPROBE_MULTI
uretprobe.multi+ KPROBE TRACE_UPROBE_MULTI
uprobe.session+ KPROBE TRACE_UPROBE_SESSION
uprobe.multi.s+ KPROBE TRACE_UPROBE_MULTI
uretprobe.multi.s+ KPROBE TRACE_UPROBE_MULTI
uprobe.session.s+ KPROBE TRACE_UPROBE_SESSION
ksyscall+ KPROBE
kretsyscall+ KPROBE
usdt+ KPROBE
usdt.s+ KPROBE
tc/ingress SCHED_CLS TCX_INGRESS
tc/egress SCHED_CLS TCX_EGRESS
tcx/ingress SCHED_CLS TCX_INGRESS
tcx/egress SCHED_CLS TCX_EGRESS
tc SCHED_CLS
classifier SCHED_CLS
action SCHED_ACT
netkit/primary SCHED_CLS NETKIT_PRIMARY
netkit/peer SCHED_CLS NETKIT_PEER
tracepoint+ TRACEPOINT
tp+ TRACEPOINT
raw_tracepoint+ RAW_TRACEPOINT
raw_tp+ RAW_TRACEPOINT
raw_tracepoint.w+ RAW_TRACEPOINT_WRITABLE
raw_tp.w+ RAW_TRACEPOINT_WRITABLE
tp_btf+ TRACING TRACE_RAW_TP
fentry+ TRACING TRACE_FENTRY
fmod_ret+ TRACING MODIFY_RETURN
fexit+ TRACING TRACE_FEXIT
fsession+ TRACING TRACE_FSESSION
fentry.s+ TRACING TRACE_FENTRY
fmod_ret.s+ TRACING MODIFY_RETURN
fexit.s+ TRACING TRACE_FEXIT
fsession.s+ TRACING TRACE_FSESSION
freplace+ EXT
lsm+ LSM LSM_MAC
lsm.s+ LSM LSM_MAC
lsm_cgroup+ LSM LSM_CGROUP
iter+ TRACING TRACE_ITER
iter.s+ TRACING TRACE_ITER
syscall SYSCALL
xdp.frags/devmap XDP XDP_DEVMAP
xdp/devmap XDP XDP_DEVMAP
xdp.frags/cpumap XDP XDP_CPUMAP
xdp/cpumap XDP XDP_CPUMAP
xdp.frags XDP XDP
xdp XDP XDP
perf_event PERF_EVENT
lwt_in LWT_IN
lwt_out LWT_OUT
lwt_xmit LWT_XMIT
lwt_seg6local LWT_SEG6LOCAL
sockops SOCK_OPS CGROUP_SOCK_OPS
sk_skb/stream_parser SK_SKB SK_SKB_STREAM_PARSER
sk_skb/stream_verdict SK_SKB SK_SKB_STREAM_VERDICT
sk_skb/verdict SK_SKB SK_SKB_VERDICT
sk_skb SK_SKB
sk_msg SK_MSG SK_MSG_VERDICT
lirc_mode2 LIRC_MODE2 LIRC_MODE2
flow_dissector FLOW_DISSECTOR FLOW_DISSECTOR
cgroup_skb/ingress CGROUP_SKB CGROUP_INET_INGRESS
cgroup_skb/egress CGROUP_SKB CGROUP_INET_EGRESS
cgroup/skb CGROUP_SKB
cgroup/sock_create CGROUP_SOCK CGROUP_INET_SOCK_CREATE
cgroup/sock_release CGROUP_SOCK CGROUP_INET_SOCK_RELEASE
cgroup/sock CGROUP_SOCK CGROUP_INET_SOCK_CREATE
cgroup/post_bind4 CGROUP_SOCK CGROUP_INET4_POST_BIND
cgroup/post_bind6 CGROUP_SOCK CGROUP_INET6_POST_BIND
cgroup/bind4 CGROUP_SOCK_ADDR CGROUP_INET4_BIND
cgroup/bind6 CGROUP_SOCK_ADDR CGROUP_INET6_BIND
cgroup/connect4 CGROUP_SOCK_ADDR CGROUP_INET4_CONNECT
cgroup/connect6 CGROUP_SOCK_ADDR CGROUP_INET6_CONNECT
cgroup/connect_unix CGROUP_SOCK_ADDR CGROUP_UNIX_CONNECT
cgroup/sendmsg4 CGROUP_SOCK_ADDR CGROUP_UDP4_SENDMSG
cgroup/sendmsg6 CGROUP_SOCK_ADDR CGROUP_UDP6_SENDMSG
cgroup/sendmsg_unix CGROUP_SOCK_ADDR CGROUP_UNIX_SENDMSG
cgroup/recvmsg4 CGROUP_SOCK_ADDR CGROUP_UDP4_RECVMSG
cgroup/recvmsg6 CGROUP_SOCK_ADDR CGROUP_UDP6_RECVMSG
cgroup/recvmsg_unix CGROUP_SOCK_ADDR CGROUP_UNIX_RECVMSG
cgroup/getpeername4 CGROUP_SOCK_ADDR CGROUP_INET4_GETPEERNAME
cgroup/getpeername6 CGROUP_SOCK_ADDR CGROUP_INET6_GETPEERNAME
cgroup/getpeername_unix CGROUP_SOCK_ADDR CGROUP_UNIX_GETPEERNAME
cgroup/getsockname4 CGROUP_SOCK_ADDR CGROUP_INET4_GETSOCKNAME
cgroup/getsockname6 CGROUP_SOCK_ADDR CGROUP_INET6_GETSOCKNAME
cgroup/getsockname_unix CGROUP_SOCK_ADDR CGROUP_UNIX_GETSOCKNAME
cgroup/sysctl CGROUP_SYSCTL CGROUP_SYSCTL
cgroup/getsockopt CGROUP_SOCKOPT CGROUP_GETSOCKOPT
cgroup/setsockopt CGROUP_SOCKOPT CGROUP_SETSOCKOPT
cgroup/dev CGROUP_DEVICE CGROUP_DEVICE
struct_ops+ STRUCT_OPS
struct_ops.s+ STRUCT_OPS
sk_lookup SK_LOOKUP SK_LOOKUP
netfilter NETFILTER NETFILTER
"""


@dataclass(frozen=True, slots=True)
class Section:
    """What a section's name says of its program."""

    #: ``XDP`` of BPF_PROG_TYPE_XDP; empty: libbpf knows no such section, only the object's own loader knows the type
    type: str
    #: ``XDP_DEVMAP`` of BPF_XDP_DEVMAP; empty: none is demanded
    attach: str = ""
    #: the part of the name before the target, such as ``kprobe``
    word: str = ""
    #: the kernel's function, hook or event; empty: the loader chooses it
    target: str = ""


def _rows() -> dict[str, tuple[str, str, bool]]:
    rows = {}
    for line in _TABLE.split("\n"):
        if words := line.split():
            rows[words[0].removesuffix("+")] = words[1], "".join(words[2:]), words[0].endswith("+")
    return rows


_ROWS = _rows()


def parse(name: str) -> Section:
    """Return what libbpf takes a program in this section for; ``?`` before the name leaves it out at first."""
    name = name.removeprefix("?")
    word, slash, target = name.partition("/")
    if name in _ROWS:
        program, attach, _ = _ROWS[name]
        return Section(program, attach, name)
    if slash and word in _ROWS:
        program, attach, with_target = _ROWS[word]
        if with_target:
            return Section(program, attach, word, target)
    return Section("", word=name)
