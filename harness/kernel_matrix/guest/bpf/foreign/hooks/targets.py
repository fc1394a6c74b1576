"""Attach a program of any type: where its section or the table says, or to a target that is made for it.

`_MAKING` has the types whose target a loader chooses. All others are attached by libbpf, by their sections. What has no
target here, and whose section names none, is `Undeclared`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.foreign.configuring import Foreign
from kernel_matrix.guest.bpf.foreign.hooks import interfaces, made
from kernel_matrix.guest.bpf.foreign.hooks.attaching import Attaching
from kernel_matrix.guest.bpf.foreign.hooks.named import by_section
from kernel_matrix.guest.bpf.foreign.hooks.place import Place
from kernel_matrix.guest.bpf.foreign.loading import LoadedObject
from kernel_matrix.guest.bpf.steps import XdpFlags

#: programs that are called, never attached
CALLED = frozenset({"syscall"})

#: types whose programs are attached in different ways by their attach types
_BY_ATTACH_TYPE = frozenset({"xdp", "sched_cls", "lsm", "tracing"})
#: libbpf's name of an attach type or of a program type -> how its target is made; the attach type decides first
_MAKING: dict[str, Callable[[Attaching], str]] = {
    "xdp_devmap": interfaces.xdp_in_map, "xdp_cpumap": interfaces.xdp_in_map, "xdp": interfaces.xdp,
    "tcx_ingress": interfaces.tcx, "tcx_egress": interfaces.tcx,
    "netkit_primary": interfaces.netkit, "netkit_peer": interfaces.netkit,
    "sched_cls": interfaces.clsact, "sched_act": interfaces.action, "netfilter": interfaces.netfilter,
    "lsm_cgroup": made.cgroup, "cgroup_skb": made.cgroup, "cgroup_sock": made.cgroup, "cgroup_sock_addr": made.cgroup,
    "sock_ops": made.cgroup, "cgroup_device": made.cgroup, "cgroup_sysctl": made.cgroup, "cgroup_sockopt": made.cgroup,
    "sk_lookup": made.netns, "flow_dissector": made.netns, "sk_skb": made.sockmap, "sk_msg": made.sockmap,
    "socket_filter": made.socket_filter, "sk_reuseport": made.reuseport, "perf_event": made.perf_event,
    "lwt_in": interfaces.route, "lwt_out": interfaces.route, "lwt_xmit": interfaces.route,
    "trace_iter": made.iterator, "struct_ops": made.struct_ops, "lirc_mode2": made.no_device,
}  # fmt: skip


def attach(
    foreign: Foreign, obj: LoadedObject, name: str, place: Place, stack: ExitStack, xdp: XdpFlags | None = None
) -> str:
    """Attach a program until ``stack`` closes; return where, in words. Raises StepError, Undeclared.

    ``xdp``: how XDP is attached; None: it is tried in each mode, and is detached at once.
    """
    at = Attaching(foreign, obj, obj.programs[name], place, stack, xdp)
    kind = steps.kind_of(at.program.pointer)
    # of other types the number means something else, such as the member of a struct
    by_attach_type = _MAKING.get(at.attach_type) if kind in _BY_ATTACH_TYPE else None
    making = by_attach_type or _MAKING.get(kind) or by_section
    return making(at)
