"""Attach a program to a cgroup, socket, map or event that is made for it; read an iterator, register a struct."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from ctypes import c_uint32
from functools import partial
from pathlib import Path

from kernel_matrix.guest.bpf import steps, structs
from kernel_matrix.guest.bpf.calls import bpf_calls, perf
from kernel_matrix.guest.bpf.foreign.hooks.attaching import Attaching
from kernel_matrix.guest.bpf.foreign.undeclared import NoTarget, Undeclared
from kernel_matrix.guest.bpf.library import libbpf
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.shared.bpf import bpf_elf
from kernel_matrix.shared.bpf.btf import Btf

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
#: structs of operations that are for one device, which their loader names in them -> that device.
#: drivers/hid/bpf/hid_bpf_struct_ops.c, hid_bpf_reg()
_OF_A_DEVICE = {"hid_bpf_ops": "an input device (HID) whose number hid_id could be"}
_CHUNK = 1 << 16


def cgroup(at: Attaching) -> str:
    """Attach to an empty cgroup, by a link."""
    step = partial(libbpf().bpf_program__attach_cgroup, at.program.pointer, at.place.cgroup)
    at.link(f"{at.attach_type} link", step)
    return at.attach_type


def netns(at: Attaching) -> str:
    """Attach to a network namespace, by a link."""
    namespace = at.place.veth.near.namespace.fd
    at.link(f"{at.attach_type} link", partial(libbpf().bpf_program__attach_netns, at.program.pointer, namespace))
    return "a namespace"


def sockmap(at: Attaching) -> str:
    """Attach to an empty sockmap; raises Undeclared where the section does not say as what."""
    if at.section == "sk_skb":
        why = "its section sk_skb does not say as what its loader attaches it to a sockmap"
        raise Undeclared(why, at.foreign.line("sections", at.program.name, '"sk_skb/stream_verdict"  # or .../verdict'))
    target = steps.create_map(steps.MapSpec("sockmap", 4, 4, 1))
    at.stack.callback(os.close, target)
    bpf_calls.cgroup(at.program.fd, target, at.attach_type, at.stack)
    return f"a sockmap, {at.attach_type}"


def socket_filter(at: Attaching) -> str:
    """Attach to a socket."""
    bpf_calls.socket_filter(at.program.fd, at.stack)
    return "a socket"


def reuseport(at: Attaching) -> str:
    """Attach to a group of sockets that share a port."""
    own = at.stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    try:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        own.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_EBPF, at.program.fd)
    except OSError as error:
        raise StepError(error.errno or 0, "attach", "socket", kind="sk_reuseport") from error
    return "a socket of a group"


def perf_event(at: Attaching) -> str:
    """Attach to a software event."""
    # a link closes its event
    event = os.dup(perf.software_event(at.stack))
    try:
        at.link("software event", partial(libbpf().bpf_program__attach_perf_event, at.program.pointer, event))
    except StepError:
        os.close(event)
        raise
    return "a software event"


def iterator(at: Attaching) -> str:
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


def struct_ops(at: Attaching) -> str:
    """Register the structs that have the program as a member."""
    own = [name for name, members in at.foreign.file.structs.items() if at.program.name in members]
    if not own:
        raise at.undeclared("no struct of the object has it as a member: its loader sets it", "STRUCT")
    for name in own:
        try:
            at.link(f"struct_ops {name}", partial(libbpf().bpf_map__attach_struct_ops, at.obj.maps[name]))
        except StepError as error:
            if error.errno == errno.EINVAL and (device := _OF_A_DEVICE.get(_struct(at.foreign.path, name))):
                raise NoTarget(f"no guest has {device}", at.foreign.name, at.program.name) from error
            raise
    return f"struct_ops {', '.join(own)}"


def no_device(at: Attaching) -> str:
    """Say that there is no such device; raises Undeclared."""
    raise NoTarget("no guest has a device of infrared light", at.foreign.name, at.program.name)


def _struct(path: Path, variable: str) -> str:
    """Return the name of the struct that a variable with operations is."""
    types = Btf(bpf_elf.section(path, ".BTF"))
    for section in bpf_elf.STRUCT_SECTIONS:
        for declared in types.declared(section):
            if declared.name == variable:
                return types.plain(declared.value)[1].name
    return ""
