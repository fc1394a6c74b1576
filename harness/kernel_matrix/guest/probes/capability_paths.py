"""The paths by which the capability table attaches a program of each type."""

from __future__ import annotations

import os
from collections.abc import Callable

from kernel_matrix.guest.bpf.calls import bpf_calls, classifier, perf
from kernel_matrix.guest.probes.capability_place import Place

#: index of the loopback interface in every network namespace: linux, LOOPBACK_IFINDEX
LOOPBACK = 1
TRACEPOINT = "syscalls/sys_enter_connect"
#: program type -> the attach type for a cgroup
CGROUP_HOOKS = {
    "cgroup_skb": "cgroup_inet_ingress",
    "cgroup_sock": "cgroup_inet_sock_create",
    "cgroup_sock_addr": "cgroup_inet4_connect",
    "cgroup_sockopt": "cgroup_getsockopt",
}
NETWORK_NAMESPACE = "/proc/self/ns/net"

#: attaches a program's fd at a place
Attach = Callable[[int, Place], object]


def paths(kind: str, symbol: str) -> dict[str, Attach]:
    """Return every path by which a program of that type can be attached; ``symbol``: the target of a kprobe."""
    if kind in CGROUP_HOOKS:
        return _of_cgroup(CGROUP_HOOKS[kind])
    return {**_of_network(), **_of_tracing(symbol)}[kind]


def _of_cgroup(hook: str) -> dict[str, Attach]:
    return {
        "prog_attach": lambda program, place: bpf_calls.cgroup(program, place.resources.cgroup, hook, place.undo),
        "link": lambda program, place: bpf_calls.link(program, place.resources.cgroup, hook, place.undo),
    }


def _of_network() -> dict[str, dict[str, Attach]]:
    return {
        "socket_filter": {"setsockopt": lambda program, place: bpf_calls.socket_filter(program, place.undo)},
        "xdp": {
            "netlink": lambda program, place: bpf_calls.xdp_netlink(program, LOOPBACK, place.undo),
            "link": lambda program, place: bpf_calls.link(program, LOOPBACK, "xdp", place.undo),
        },
        "sched_cls": {
            "clsact": lambda program, place: bpf_calls.clsact(program, LOOPBACK, place.undo),
            "netlink": lambda program, place: classifier.attach(program, LOOPBACK, place.undo),
            "tcx": lambda program, place: bpf_calls.link(program, LOOPBACK, "tcx_ingress", place.undo),
        },
        "sk_lookup": {"link": _to_network_namespace},
        "sk_msg": {
            "prog_attach": lambda program, place: bpf_calls.cgroup(
                program, place.resources.maps["sockmap"], "sk_msg_verdict", place.undo
            )
        },
    }


def _to_network_namespace(program: int, place: Place) -> None:
    """Attach to the network namespace of the process."""
    own = os.open(NETWORK_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        bpf_calls.link(program, own, "sk_lookup", place.undo)
    finally:
        os.close(own)


def _of_tracing(symbol: str) -> dict[str, dict[str, Attach]]:
    def perf_paths(event: Callable[[Place], int]) -> dict[str, Attach]:
        return {
            "perf": lambda program, place: perf.attach(program, event(place)),
            "link": lambda program, place: bpf_calls.link(program, event(place), "perf_event", place.undo),
        }

    def tracefs(number: Callable[[Place], int]) -> Attach:
        return lambda program, place: perf.attach(program, perf.tracepoint_event(number(place), place.undo))

    def with_tracefs(event: Callable[[Place], int], number: Callable[[Place], int]) -> dict[str, Attach]:
        both = perf_paths(event)
        return {"perf": both["perf"], "tracefs": tracefs(number), "link": both["link"]}

    return {
        "kprobe": with_tracefs(
            lambda place: perf.kprobe_event(symbol, place.undo),
            lambda place: perf.tracefs_kprobe(symbol, place.undo),
        ),
        "tracepoint": with_tracefs(
            lambda place: perf.tracepoint_event(place.resources.tracepoint, place.undo),
            lambda _: perf.tracepoint_number(TRACEPOINT),
        ),
        "uprobe": perf_paths(lambda place: perf.uprobe_event(*place.resources.uprobe, place.undo)),
        "perf_event": perf_paths(lambda place: perf.software_event(place.undo)),
        "kprobe_multi": {
            "link": lambda program, place: bpf_calls.kprobe_multi(program, place.resources.address, place.undo)
        },
        "raw_tracepoint": {"link": lambda program, place: bpf_calls.raw_tracepoint(program, "sys_enter", place.undo)},
        "fentry": {"link": lambda program, place: bpf_calls.link(program, 0, "trace_fentry", place.undo)},
        "lsm": {"link": lambda program, place: bpf_calls.link(program, 0, "lsm_mac", place.undo)},
    }
