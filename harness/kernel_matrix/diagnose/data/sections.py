"""The section names by which libbpf knows a program's type, and the one that another name resembles. Pure data."""

from __future__ import annotations

import difflib

#: section_defs of libbpf.c, sec_def_matches(): ``x+`` is ``x`` or ``x/TARGET``; without the sign it is that name alone
_DEFINED = (
    "socket", "sk_reuseport/migrate", "sk_reuseport", "kprobe+", "uprobe+", "uprobe.s+", "kretprobe+", "uretprobe+",
    "uretprobe.s+", "kprobe.multi+", "kretprobe.multi+", "kprobe.session+", "uprobe.multi+", "uretprobe.multi+",
    "uprobe.session+", "uprobe.multi.s+", "uretprobe.multi.s+", "uprobe.session.s+", "ksyscall+", "kretsyscall+",
    "usdt+", "usdt.s+", "tc/ingress", "tc/egress", "tcx/ingress", "tcx/egress", "tc", "classifier", "action",
    "netkit/primary", "netkit/peer", "tracepoint+", "tp+", "raw_tracepoint+", "raw_tp+", "raw_tracepoint.w+",
    "raw_tp.w+", "tp_btf+", "fentry+", "fmod_ret+", "fexit+", "fsession+", "fentry.s+", "fmod_ret.s+", "fexit.s+",
    "fsession.s+", "freplace+", "lsm+", "lsm.s+", "lsm_cgroup+", "iter+", "iter.s+", "syscall", "xdp.frags/devmap",
    "xdp/devmap", "xdp.frags/cpumap", "xdp/cpumap", "xdp.frags", "xdp", "perf_event", "lwt_in", "lwt_out", "lwt_xmit",
    "lwt_seg6local", "sockops", "sk_skb/stream_parser", "sk_skb/stream_verdict", "sk_skb/verdict", "sk_skb", "sk_msg",
    "lirc_mode2", "flow_dissector", "cgroup_skb/ingress", "cgroup_skb/egress", "cgroup/skb", "cgroup/sock_create",
    "cgroup/sock_release", "cgroup/sock", "cgroup/post_bind4", "cgroup/post_bind6", "cgroup/bind4", "cgroup/bind6",
    "cgroup/connect4", "cgroup/connect6", "cgroup/connect_unix", "cgroup/sendmsg4", "cgroup/sendmsg6",
    "cgroup/sendmsg_unix", "cgroup/recvmsg4", "cgroup/recvmsg6", "cgroup/recvmsg_unix", "cgroup/getpeername4",
    "cgroup/getpeername6", "cgroup/getpeername_unix", "cgroup/getsockname4", "cgroup/getsockname6",
    "cgroup/getsockname_unix", "cgroup/sysctl", "cgroup/getsockopt", "cgroup/setsockopt", "cgroup/dev", "struct_ops+",
    "struct_ops.s+", "sk_lookup", "netfilter",
)  # fmt: skip
#: of programs that a trampoline at the beginning of a function calls
TRAMPOLINES = frozenset({"fentry", "fexit", "fmod_ret", "lsm"})
SECTIONS = tuple(name.removesuffix("+") for name in _DEFINED)
_WITH_TARGET = frozenset(name.removesuffix("+") for name in _DEFINED if name.endswith("+"))


def known(section: str) -> bool:
    """Whether a libbpf knows a section; not every version knows all of these."""
    return section in SECTIONS or section.partition("/")[0] in _WITH_TARGET


def near(section: str) -> str:
    """Return the section of libbpf's that a name begins with, or resembles most; empty when it resembles none."""
    beginning = [name for name in SECTIONS if section.startswith(name)]
    if beginning:
        return max(beginning, key=len)
    return next(iter(difflib.get_close_matches(section, SECTIONS, 1, 0.7)), "")
