"""Attach a program to interfaces, routes and hooks of a network namespace that is made for it."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from functools import partial

from kernel_matrix.diagnose.situation import MapFacts
from kernel_matrix.guest.bpf import steps, structs
from kernel_matrix.guest.bpf.calls import bpf_calls
from kernel_matrix.guest.bpf.calls.instructions import leave, mov
from kernel_matrix.guest.bpf.calls.verifier import verified
from kernel_matrix.guest.bpf.foreign.hooks import place
from kernel_matrix.guest.bpf.foreign.hooks.attaching import Attaching
from kernel_matrix.guest.bpf.foreign.loading import map_facts
from kernel_matrix.guest.bpf.library import libbpf
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.bpf.steps import XdpFlags
from kernel_matrix.guest.system.netns import Interface

# linux/netfilter.h
_NFPROTO_IPV4, _NF_INET_LOCAL_OUT = 2, 3
#: linux/pkt_sched.h, TC_H_CLSACT and TC_H_MIN_INGRESS
_INGRESS = 0xFFFFFFF2


@contextmanager
def _there(at: Attaching) -> Generator[tuple[Interface, ExitStack]]:
    """Enter the namespace for the block; yield its interface, and what is undone in there when it is detached."""
    undo = ExitStack()
    at.stack.callback(_undo_there, at.place, undo)
    with at.place.in_namespace() as near:
        yield near, undo


def _undo_there(own: place.Place, undo: ExitStack) -> None:
    with own.in_namespace():
        undo.close()


def xdp(at: Attaching) -> str:
    """Attach by netlink: natively, then generically, or in the one mode that is asked for, which stays.

    A program that is bound to a device runs in its driver alone (dev_xdp_attach()).
    """
    bound = at.program.name in at.foreign.settings.device_bound
    modes = (XdpFlags.NATIVE,) if bound else (XdpFlags.NATIVE, XdpFlags.GENERIC)
    with _there(at) as (near, undo):
        if at.xdp is not None:
            _attach_xdp(at, near, at.xdp)
            undo.callback(steps.xdp_detach, near.index, at.xdp)
            return str(at.xdp.name).lower()
        for mode in modes:
            _attach_xdp(at, near, mode)
            steps.xdp_detach(near.index, mode)
    return ", ".join(str(mode.name).lower() for mode in modes)


def _attach_xdp(at: Attaching, near: Interface, mode: XdpFlags) -> None:
    """Attach in one mode; the error of the generic one has the map that it may have refused."""
    try:
        steps.xdp_attach(at.program.fd, near.index, mode)
    except StepError as error:
        if error.errno == errno.EINVAL and mode & XdpFlags.GENERIC:
            error.map = _map_of_programs(at)
        raise


def _map_of_programs(at: Attaching) -> MapFacts | None:
    """Return the map of interfaces or processors that the program uses and whose entries may hold programs."""
    used = at.foreign.file.uses.get(at.program.name, frozenset())
    facts = (map_facts(at.foreign, name, pointer) for name, pointer in at.obj.maps.items() if name in used)
    # struct bpf_devmap_val and bpf_cpumap_val of linux/bpf.h: the second field is the program
    return next((one for one in facts if one.type in {"devmap", "devmap_hash", "cpumap"} and one.value > 4), None)


def xdp_in_map(at: Attaching) -> str:
    """Put a program into a map of interfaces or processors, which is how these are attached."""
    with at.place.in_namespace() as near:
        kind, first = ("devmap", near.index) if at.attach_type == "xdp_devmap" else ("cpumap", 64)
        target = steps.create_map(steps.MapSpec(kind, 4, 8, 1))
        at.stack.callback(os.close, target)
        value = first.to_bytes(4, "little") + at.program.fd.to_bytes(4, "little")
        result = libbpf().bpf_map_update_elem(target, bytes(4), value, 0)
        if result < 0:
            raise StepError(-result, "attach", f"{at.attach_type} entry", kind="xdp")
    return kind


def clsact(at: Attaching) -> str:
    """Attach as a filter of a clsact qdisc."""
    egress = at.attach_type == "tcx_egress"
    with _there(at) as (near, undo):
        bpf_calls.clsact(at.program.fd, near.index, undo, egress=egress)
    return "clsact, egress" if egress else "clsact"


def action(at: Attaching) -> str:
    """Attach as the action of a filter that takes every frame."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with _there(at) as (near, undo):
        netlink = undo.enter_context(IPRoute())
        action = {"kind": "bpf", "fd": at.program.fd, "name": at.program.name, "action": "ok"}
        options = {"parent": _INGRESS, "name": "all", "action": [action]}
        try:
            netlink.tc("add", "clsact", near.index)
            undo.callback(netlink.tc, "del", "clsact", near.index)
            with verified("sched_cls", mov(0, 0) + leave()) as everything:
                netlink.tc("add-filter", "bpf", near.index, fd=everything.fd, **options)
        except NetlinkError as error:
            raise StepError(error.code, "attach", "tc action", kind="sched_act") from error
    return "action of a filter"


def tcx(at: Attaching) -> str:
    """Attach by a tcx link."""
    if at.hook == "tc":
        # tc/ingress is libbpf's other name of tcx/ingress, and loaders attach it by clsact where there is no tcx
        return clsact(at)
    with at.place.in_namespace() as near:
        step = partial(libbpf().bpf_program__attach_tcx, at.program.pointer, near.index, None)
        at.link(f"{at.attach_type} link", step)
    return at.attach_type


def netkit(at: Attaching) -> str:
    """Attach to a netkit pair, by a link."""
    with _there(at) as (_, undo):
        index = undo.enter_context(place.netkit(at.attach_type))
        step = partial(libbpf().bpf_program__attach_netkit, at.program.pointer, index, None)
        at.link(f"{at.attach_type} link", step)
    return at.attach_type


def netfilter(at: Attaching) -> str:
    """Attach to the hook of outgoing packets, by a link."""
    opts = structs.NetfilterOpts(
        sz=ctypes.sizeof(structs.NetfilterOpts), pf=_NFPROTO_IPV4, hooknum=_NF_INET_LOCAL_OUT, priority=-128
    )
    with at.place.in_namespace():
        step = partial(libbpf().bpf_program__attach_netfilter, at.program.pointer, ctypes.byref(opts))
        at.link("netfilter link", step)
    return "netfilter, local out"


def route(at: Attaching) -> str:
    """Attach to a route, by its encapsulation."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    direction = steps.kind_of(at.program.pointer).removeprefix("lwt_")
    with _there(at) as (near, undo):
        netlink = undo.enter_context(IPRoute())
        encap = {"type": "bpf", direction: {"fd": at.program.fd, "name": at.program.name}}
        try:
            netlink.route("add", dst="192.0.2.0/24", oif=near.index, encap=encap)
            undo.callback(netlink.route, "del", dst="192.0.2.0/24", oif=near.index)
        except NetlinkError as error:
            raise StepError(error.code, "attach", f"route {direction}", kind=f"lwt_{direction}") from error
    return f"a route, {direction}"
