"""Attach a program of any type: where its section or the table says, or to a target that is made for it.

`_MAKING` has the types whose target a loader chooses. All others are attached by libbpf, by their sections. What has no
target here, and whose section names none, is `Undeclared`.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from ctypes import c_bool, c_uint32
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kernel_matrix.guest.bpf import bpf_calls, perf, steps, structs
from kernel_matrix.guest.bpf.diagnosis import machine
from kernel_matrix.guest.bpf.foreign import place
from kernel_matrix.guest.bpf.foreign.configuring import Foreign
from kernel_matrix.guest.bpf.foreign.loading import LoadedObject
from kernel_matrix.guest.bpf.foreign.place import Place
from kernel_matrix.guest.bpf.foreign.undeclared import Undeclared
from kernel_matrix.guest.bpf.instructions import leave, mov
from kernel_matrix.guest.bpf.library import captured_messages, libbpf
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.bpf.steps import Program, XdpFlags
from kernel_matrix.guest.bpf.verifier import verified

#: programs that are called, never attached
CALLED = frozenset({"syscall"})
#: sections of probes in user space, whose target is made here where they name none
_USER = frozenset({"uprobe", "uretprobe", "usdt"})
#: a function of a library that every guest has, and a probe (SDT) of another: Debian's C library has none
_FUNCTION = (b"libc.so.6", b"getpid")
_PROBE = (b"libstdc++.so.6", b"libstdcxx", b"catch")
#: every process
_ALL = -1
# linux/netfilter.h
_NFPROTO_IPV4, _NF_INET_LOCAL_OUT = 2, 3
#: linux/pkt_sched.h, TC_H_CLSACT and TC_H_MIN_INGRESS
_INGRESS = 0xFFFFFFF2
#: asm-generic/socket.h
_SO_ATTACH_REUSEPORT_EBPF = 52
#: linux/bpf.h, BPF_CGROUP_ITER_DESCENDANTS_PRE
_DESCENDANTS = 2
#: the types of maps that an iterator over a map's elements takes
_ITERATED = {
    "bpf_map_elem": {"hash", "percpu_hash", "lru_hash", "lru_percpu_hash", "array", "percpu_array"},
    "bpf_sk_storage_map": {"sk_storage"},
    "sockmap": {"sockmap", "sockhash"},
}
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Attaching:
    """A loaded program that is to be attached."""

    foreign: Foreign
    obj: LoadedObject
    program: Program
    place: Place
    #: detaches it
    stack: ExitStack

    @property
    def section(self) -> str:
        """Its section, as the table or the file has it."""
        return self.foreign.section(self.program.name)

    @property
    def hook(self) -> str:
        """The first word of its section, without the suffixes that do not concern where it is attached."""
        return self.section.partition("/")[0].removesuffix(".s").removesuffix(".w")

    @property
    def target(self) -> str:
        """Where the table or its section attaches it; empty: neither says."""
        return self.foreign.settings.targets.get(self.program.name) or self.section.partition("/")[2]

    @property
    def attach_type(self) -> str:
        """Libbpf's name of its attach type."""
        number = libbpf().bpf_program__expected_attach_type(self.program.pointer)
        return str(libbpf().libbpf_bpf_attach_type_str(number).decode())

    def link(self, what: str, step: Callable[[], int | None]) -> int:
        """Attach by a function of libbpf's that returns a link; raises StepError."""
        with captured_messages() as messages:
            link = step()
            if not link:
                kind = steps.kind_of(self.program.pointer)
                raise StepError(ctypes.get_errno(), "attach", what, messages(), kind)
        self.stack.callback(steps.destroy_link, link, what)
        return link

    def undeclared(self, why: str, example: str) -> Undeclared:
        """Return that its target is not declared."""
        return Undeclared(why, self.foreign.line("targets", self.program.name, f'"{example}"'))


def attach(foreign: Foreign, obj: LoadedObject, name: str, place: Place, stack: ExitStack) -> str:
    """Attach a program until ``stack`` closes; return where, in words. Raises StepError, Undeclared."""
    at = Attaching(foreign, obj, obj.programs[name], place, stack)
    kind = steps.kind_of(at.program.pointer)
    making = _MAKING.get(at.attach_type) or _MAKING.get(kind) or _by_section
    return making(at)


def _by_section(at: Attaching) -> str:
    """Attach to what the section, or the table, names."""
    if at.hook in _USER or at.hook.removesuffix(".multi") in _USER:
        return _user(at)
    pointer = at.program.pointer
    if at.hook in _NAMED:
        if not at.target:
            raise at.undeclared(f"its section {at.section} does not say where its loader attaches it", _NAMED[at.hook])
        if at.program.name in at.foreign.settings.targets:
            return _named(at)
    what = steps.where(pointer) if at.hook not in {"kprobe.multi", "kretprobe.multi"} else f"kprobe.multi {at.target}"
    try:
        at.link(what, partial(libbpf().bpf_program__attach, pointer))
    except StepError as error:
        if error.errno == errno.EOPNOTSUPP and not at.target:
            raise at.undeclared(f"nothing here is a target for its section {at.section}", "TARGET") from error
        raise
    _check_active(at)
    return at.target or at.section


def _check_active(at: Attaching) -> None:
    """Refuse an LSM program where bpf is not among the active modules: it is attached and never runs."""
    active = machine.active_lsms()
    if steps.kind_of(at.program.pointer) == "lsm" and active is not None and "bpf" not in active:
        raise StepError(0, "attach", f"{at.program.name}: bpf is not an active security module", kind="lsm")


#: sections that name where they attach -> an example of it
_NAMED = {
    "kprobe": "FUNCTION", "kretprobe": "FUNCTION", "ksyscall": "CALL", "kretsyscall": "CALL", "tp": "CATEGORY:NAME",
    "tracepoint": "CATEGORY:NAME", "raw_tp": "NAME", "raw_tracepoint": "NAME", "kprobe.multi": "PATTERN",
    "kretprobe.multi": "PATTERN",
}  # fmt: skip


def _named(at: Attaching) -> str:
    """Attach a probe of the kernel to what the table names."""
    pointer, target, lib = at.program.pointer, at.target, libbpf()
    returning = c_bool("ret" in at.hook)
    if at.hook in {"tp", "tracepoint"}:
        category, _, event = target.partition(":")
        step = partial(lib.bpf_program__attach_tracepoint, pointer, category.encode(), event.encode())
        at.link(f"tracepoint {target}", step)
    elif at.hook in {"raw_tp", "raw_tracepoint"}:
        at.link(f"raw tracepoint {target}", partial(lib.bpf_program__attach_raw_tracepoint, pointer, target.encode()))
    elif at.hook.endswith(".multi"):
        step = partial(lib.bpf_program__attach_kprobe_multi_opts, pointer, target.encode(), None)
        at.link(f"kprobe.multi {target}", step)
    else:
        at.link(f"kprobe {target}", partial(lib.bpf_program__attach_kprobe, pointer, returning, target.encode()))
    return target


def _user(at: Attaching) -> str:
    """Attach to a function or probe of a program: that of the table or the section, or one of a library."""
    pointer, lib, declared = at.program.pointer, libbpf(), at.foreign.settings.targets.get(at.program.name)
    if not at.target:
        file, *names = _PROBE if at.hook == "usdt" else _FUNCTION
    else:
        path, *rest = at.target.split(":")
        example = "/FILE:PROVIDER:NAME" if at.hook == "usdt" else "/FILE:SYMBOL"
        if not rest:
            raise at.undeclared(f"its section {at.section} names no file: its loader does", example)
        if path.startswith("/") and not Path(path).exists():
            raise at.undeclared(f"there is no file {path} here: name one that the guest has", example)
        if not declared:
            at.link(f"{at.hook} {at.target}", partial(lib.bpf_program__attach, pointer))
            return at.target
        file, names = path.encode(), [word.encode() for word in rest]
    at.link(f"{at.hook} {at.target or file.decode()}", partial(_attach_user, at, file, names))
    return at.target or b":".join((file, *names)).decode()


def _attach_user(at: Attaching, file: bytes, names: list[bytes]) -> int | None:
    pointer, lib = at.program.pointer, libbpf()
    if at.hook == "usdt":
        return lib.bpf_program__attach_usdt(pointer, _ALL, file, names[0], names[1], None)  # type: ignore[no-any-return]
    if at.hook.endswith(".multi"):
        return lib.bpf_program__attach_uprobe_multi(pointer, _ALL, file, names[0], None)  # type: ignore[no-any-return]
    opts = structs.UprobeOpts(
        sz=ctypes.sizeof(structs.UprobeOpts), retprobe=at.hook.startswith("uret"), func_name=names[0]
    )
    return lib.bpf_program__attach_uprobe_opts(pointer, _ALL, file, 0, ctypes.byref(opts))  # type: ignore[no-any-return]


def _xdp(at: Attaching) -> str:
    with at.place.in_namespace() as near:
        for mode in (XdpFlags.NATIVE, XdpFlags.GENERIC):
            steps.xdp_attach(at.program.fd, near.index, mode)
            steps.xdp_detach(near.index, mode)
    return "native, generic"


def _xdp_in_map(at: Attaching) -> str:
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


def _clsact(at: Attaching) -> str:
    with at.place.in_namespace() as near, ExitStack() as undo:
        bpf_calls.clsact(at.program.fd, near.index, undo)
    return "clsact"


def _action(at: Attaching) -> str:
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with at.place.in_namespace() as near, IPRoute() as netlink:
        action = {"kind": "bpf", "fd": at.program.fd, "name": at.program.name, "action": "ok"}
        options = {"parent": _INGRESS, "name": "all", "action": [action]}
        try:
            netlink.tc("add", "clsact", near.index)
            try:
                with verified("sched_cls", mov(0, 0) + leave()) as everything:
                    netlink.tc("add-filter", "bpf", near.index, fd=everything.fd, **options)
            finally:
                netlink.tc("del", "clsact", near.index)
        except NetlinkError as error:
            raise StepError(error.code, "attach", "tc action", kind="sched_act") from error
    return "action of a filter"


def _tcx(at: Attaching) -> str:
    if at.hook == "tc":
        # tc/ingress is libbpf's other name of tcx/ingress, and loaders attach it by clsact where there is no tcx
        return _clsact(at)
    with at.place.in_namespace() as near, ExitStack() as own:
        step = partial(libbpf().bpf_program__attach_tcx, at.program.pointer, near.index, None)
        _within(at, own).link(f"{at.attach_type} link", step)
    return at.attach_type


def _netkit(at: Attaching) -> str:
    with at.place.in_namespace(), place.netkit(at.attach_type) as index, ExitStack() as own:
        step = partial(libbpf().bpf_program__attach_netkit, at.program.pointer, index, None)
        _within(at, own).link(f"{at.attach_type} link", step)
    return at.attach_type


def _netfilter(at: Attaching) -> str:
    opts = structs.NetfilterOpts(
        sz=ctypes.sizeof(structs.NetfilterOpts), pf=_NFPROTO_IPV4, hooknum=_NF_INET_LOCAL_OUT, priority=-128
    )
    with at.place.in_namespace(), ExitStack() as own:
        step = partial(libbpf().bpf_program__attach_netfilter, at.program.pointer, ctypes.byref(opts))
        _within(at, own).link("netfilter link", step)
    return "netfilter, local out"


def _within(at: Attaching, own: ExitStack) -> Attaching:
    """Return the same with links that end with ``own``, inside a namespace."""
    return Attaching(at.foreign, at.obj, at.program, at.place, own)


def _cgroup(at: Attaching) -> str:
    step = partial(libbpf().bpf_program__attach_cgroup, at.program.pointer, at.place.cgroup)
    at.link(f"{at.attach_type} link", step)
    return at.attach_type


def _netns(at: Attaching) -> str:
    namespace = at.place.veth.near.namespace.fd
    at.link(f"{at.attach_type} link", partial(libbpf().bpf_program__attach_netns, at.program.pointer, namespace))
    return "a namespace"


def _sockmap(at: Attaching) -> str:
    target = steps.create_map(steps.MapSpec("sockmap", 4, 4, 1))
    at.stack.callback(os.close, target)
    bpf_calls.cgroup(at.program.fd, target, at.attach_type, at.stack)
    return f"a sockmap, {at.attach_type}"


def _socket(at: Attaching) -> str:
    bpf_calls.socket_filter(at.program.fd, at.stack)
    return "a socket"


def _reuseport(at: Attaching) -> str:
    import socket

    own = at.stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    try:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        own.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_EBPF, at.program.fd)
    except OSError as error:
        raise StepError(error.errno or 0, "attach", "socket", kind="sk_reuseport") from error
    return "a socket of a group"


def _perf_event(at: Attaching) -> str:
    # a link closes its event
    event = os.dup(perf.software_event(at.stack))
    try:
        at.link("software event", partial(libbpf().bpf_program__attach_perf_event, at.program.pointer, event))
    except StepError:
        os.close(event)
        raise
    return "a software event"


def _route(at: Attaching) -> str:
    """Attach to a route, by its encapsulation."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    direction = steps.kind_of(at.program.pointer).removeprefix("lwt_")
    with at.place.in_namespace() as near, IPRoute() as netlink:
        encap = {"type": "bpf", direction: {"fd": at.program.fd, "name": at.program.name}}
        try:
            netlink.route("add", dst="192.0.2.0/24", oif=near.index, encap=encap)
            netlink.route("del", dst="192.0.2.0/24", oif=near.index)
        except NetlinkError as error:
            raise StepError(error.code, "attach", f"route {direction}", kind=f"lwt_{direction}") from error
    return f"a route, {direction}"


def _iterator(at: Attaching) -> str:
    """Attach an iterator and read it to its end."""
    # the parts of union bpf_iter_link_info that are used: map.map_fd, or order, cgroup_fd and cgroup_id of a cgroup
    info: ctypes.Array[c_uint32] | None = None
    if at.target in _ITERATED:
        info = (c_uint32 * 1)(_iterated_map(at))
    elif at.target == "cgroup":
        info = (c_uint32 * 4)(_DESCENDANTS)
    opts = structs.IterOpts(
        ctypes.sizeof(structs.IterOpts),
        None if info is None else ctypes.addressof(info),
        0 if info is None else ctypes.sizeof(info),
    )
    step = partial(libbpf().bpf_program__attach_iter, at.program.pointer, ctypes.byref(opts))
    link = at.link(f"iterator {at.target}", step)
    reading = steps.checked(libbpf().bpf_iter_create(libbpf().bpf_link__fd(link)), "attach", f"iterator {at.target}")
    size = 0
    try:
        while chunk := _read(reading):
            size += len(chunk)
    except OSError as error:
        raise StepError(error.errno or 0, "read", f"iterator {at.target}", kind="tracing") from error
    finally:
        os.close(reading)
    return f"iterator {at.target}, read to its end"


def _read(reading: int) -> bytes:
    while True:
        try:
            return os.read(reading, _CHUNK)
        except BlockingIOError:
            # bpf_seq_read(): a million objects without output, and more to come
            continue


def _iterated_map(at: Attaching) -> int:
    lib = libbpf()
    for pointer in at.obj.maps.values():
        if lib.libbpf_bpf_map_type_str(lib.bpf_map__type(pointer)).decode() in _ITERATED[at.target]:
            return steps.checked(lib.bpf_map__fd(pointer), "attach", "map")
    kinds = ", ".join(sorted(_ITERATED[at.target]))
    raise at.undeclared(f"the object has no map whose elements it could go through ({kinds})", "MAP")


def _struct_ops(at: Attaching) -> str:
    own = [name for name, members in at.foreign.file.structs.items() if at.program.name in members]
    if not own:
        raise at.undeclared("no struct of the object has it as a member: its loader sets it", "STRUCT")
    for name in own:
        at.link(f"struct_ops {name}", partial(libbpf().bpf_map__attach_struct_ops, at.obj.maps[name]))
    return f"struct_ops {', '.join(own)}"


def _no_device(at: Attaching) -> str:
    raise at.undeclared("no guest has a device of infrared light", "DEVICE")


#: libbpf's name of an attach type or of a program type -> how its target is made; the attach type decides first
_MAKING: dict[str, Callable[[Attaching], str]] = {
    "xdp_devmap": _xdp_in_map, "xdp_cpumap": _xdp_in_map, "xdp": _xdp,
    "tcx_ingress": _tcx, "tcx_egress": _tcx, "netkit_primary": _netkit, "netkit_peer": _netkit,
    "sched_cls": _clsact, "sched_act": _action, "netfilter": _netfilter,
    "lsm_cgroup": _cgroup, "cgroup_skb": _cgroup, "cgroup_sock": _cgroup, "cgroup_sock_addr": _cgroup,
    "sock_ops": _cgroup, "cgroup_device": _cgroup, "cgroup_sysctl": _cgroup, "cgroup_sockopt": _cgroup,
    "sk_lookup": _netns, "flow_dissector": _netns, "sk_skb": _sockmap, "sk_msg": _sockmap,
    "socket_filter": _socket, "sk_reuseport": _reuseport, "perf_event": _perf_event,
    "lwt_in": _route, "lwt_out": _route, "lwt_xmit": _route,
    "trace_iter": _iterator, "struct_ops": _struct_ops, "lirc_mode2": _no_device,
}  # fmt: skip
