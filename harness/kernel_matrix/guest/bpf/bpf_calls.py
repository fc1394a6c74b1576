"""Loading and attaching by file descriptor alone: what a process needs that did not open the object.

kernel_matrix.guest.bpf.steps works with libbpf's objects: it cannot attach a program that a process has just loaded, or load
with a token, and libbpf compares a program's type with the hook's before the kernel does. Here every function makes one
kernel call (attaching by perf or clsact: the few that the path is made of) and raises StepError with the kernel's
errno. What is made is undone through the ExitStack that the caller passes.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
from contextlib import ExitStack
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kernel_matrix.guest.bpf import library, steps
from kernel_matrix.guest.bpf.step_error import Stage, StepError

#: asm-generic/socket.h
_SO_ATTACH_BPF = 50
#: linux/bpf.h: the program is loaded with the rights of a token; the same for a map
_TOKEN_FLAG = 1 << 16


class _TcHook(ctypes.Structure):
    """struct bpf_tc_hook of libbpf.h."""

    _fields_ = (("sz", c_size_t), ("ifindex", c_int), ("attach_point", c_int), ("parent", c_uint32))


class _TcOpts(ctypes.Structure):
    """struct bpf_tc_opts of libbpf.h."""

    _fields_ = (
        ("sz", c_size_t),
        ("prog_fd", c_int),
        ("flags", c_uint32),
        ("prog_id", c_uint32),
        ("handle", c_uint32),
        ("priority", c_uint32),
    )


class _KprobeMultiOpts(ctypes.Structure):
    """struct bpf_link_create_opts of libbpf's bpf.h, with the kprobe_multi member of its union."""

    _fields_ = (
        ("sz", c_size_t),
        ("flags", c_uint32),
        ("iter_info", c_void_p),
        ("iter_info_len", c_uint32),
        ("target_btf_id", c_uint32),
        ("multi_flags", c_uint32),
        ("count", c_uint32),
        ("symbols", c_void_p),
        ("addresses", c_void_p),
        ("cookies", c_void_p),
    )


class _BtfLoadOpts(ctypes.Structure):
    """struct bpf_btf_load_opts of libbpf 1.5's bpf.h."""

    _fields_ = (
        ("sz", c_size_t),
        ("log_buf", c_char_p),
        ("log_level", c_uint32),
        ("log_size", c_uint32),
        ("log_true_size", c_uint32),
        ("btf_flags", c_uint32),
        ("token_fd", c_uint32),
    )


#: BTF of one type, ``int``: struct btf_header, struct btf_type with an int's encoding, strings (linux/btf.h)
_BTF = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 16, 16, 5) + struct.pack("<IIII", 1, 1 << 24, 4, 32) + b"\0int\0"


@cache
def _library() -> ctypes.CDLL:
    lib = library.libbpf()
    for name, arguments in {
        "bpf_program__expected_attach_type": [c_void_p],
        "bpf_link_create": [c_int, c_int, c_int, c_void_p],
        "bpf_raw_tracepoint_open": [c_char_p, c_int],
        "bpf_prog_attach": [c_int, c_int, c_int, c_uint32],
        "bpf_prog_detach2": [c_int, c_int, c_int],
        "bpf_prog_get_fd_by_id": [c_uint32],
        "bpf_map_get_fd_by_id": [c_uint32],
        "bpf_obj_get_info_by_fd": [c_int, c_void_p, POINTER(c_uint32)],
        "bpf_map_update_elem": [c_int, c_void_p, c_void_p, c_uint64],
        "bpf_prog_query": [c_int, c_int, c_uint32, c_void_p, c_void_p, POINTER(c_uint32)],
        "bpf_prog_test_run_opts": [c_int, c_void_p],
        "bpf_btf_load": [c_char_p, c_size_t, c_void_p],
        "bpf_tc_hook_create": [POINTER(_TcHook)],
        "bpf_tc_hook_destroy": [POINTER(_TcHook)],
        "bpf_tc_attach": [POINTER(_TcHook), POINTER(_TcOpts)],
    }.items():
        function = getattr(lib, name)
        function.argtypes, function.restype = arguments, c_int
    lib.libbpf_bpf_attach_type_str.argtypes, lib.libbpf_bpf_attach_type_str.restype = [c_int], c_char_p
    return lib


@cache
def _numbers(kind: str) -> dict[str, int]:
    """Return libbpf's names of the attach types or map types and the kernel's numbers."""
    name_of = getattr(_library(), f"libbpf_bpf_{kind}_type_str")
    found: dict[str, int] = {}
    while name := name_of(len(found)):
        found[name.decode()] = len(found)
    return found


def _fd(result: int, stage: Stage, what: str, undo: ExitStack, *, pointer: int = 0, token: bool = False) -> int:
    """Keep what was made; ``pointer``: libbpf's program that takes part, ``token``: whether one was handed along."""
    if result < 0:
        raise StepError(-result, stage, what, kind=steps.kind_of(pointer) if pointer else "", token=token)
    undo.callback(os.close, result)
    return result


def _done(result: int, stage: Stage, what: str) -> None:
    if result < 0:
        raise StepError(-result, stage, what)


@dataclass(frozen=True, slots=True)
class Loadable:
    """A program with all that BPF_PROG_LOAD wants: relocated by libbpf, its maps open."""

    program: steps.Program
    expected_attach_type: int
    #: the function that fentry or LSM attaches to, by its number in the kernel's BTF; 0 for other types
    target: int

    @classmethod
    def of(cls, program: steps.Program, target: int = 0) -> Loadable:
        """Look up what libbpf knows of a loaded program; ``target``: the function it was loaded for."""
        return cls(program, _library().bpf_program__expected_attach_type(program.pointer), target)


def load(loadable: Loadable, undo: ExitStack, token: int | None = None) -> int:
    """Make the one BPF_PROG_LOAD call; return the fd."""
    lib, pointer = _library(), loadable.program.pointer
    opts = library.ProgLoadOpts(
        sz=ctypes.sizeof(library.ProgLoadOpts),
        expected_attach_type=loadable.expected_attach_type,
        attach_btf_id=loadable.target,
        prog_flags=0 if token is None else _TOKEN_FLAG,
        token_fd=token or 0,
    )
    instructions, count = lib.bpf_program__insns(pointer), lib.bpf_program__insn_cnt(pointer)
    kind = lib.bpf_program__type(pointer)
    result = lib.bpf_prog_load(kind, b"step", b"GPL", instructions, count, ctypes.byref(opts))
    return _fd(result, "load", loadable.program.name, undo, pointer=pointer, token=token is not None)


def create_map(spec: steps.MapSpec, undo: ExitStack, token: int | None = None, *, flags: int = 0) -> int:
    """Make the one BPF_MAP_CREATE call; return the fd."""
    opts = library.MapCreateOpts(
        sz=ctypes.sizeof(library.MapCreateOpts),
        map_flags=flags | (0 if token is None else _TOKEN_FLAG),
        token_fd=token or 0,
    )
    number = _numbers("map")[spec.type]
    result = _library().bpf_map_create(number, b"step", spec.key, spec.value, spec.entries, ctypes.byref(opts))
    return _fd(result, "map_create", spec.type, undo, token=token is not None)


def link(program: int, target: int, attach_type: str, undo: ExitStack) -> int:
    """Make the one BPF_LINK_CREATE call; for a tracing program of a kernel without it BPF_RAW_TRACEPOINT_OPEN."""
    result = _library().bpf_link_create(program, target, _numbers("attach")[attach_type], None)
    return _fd(result, "attach", f"{attach_type} link", undo)


def kprobe_multi(program: int, address: int, undo: ExitStack) -> int:
    """Make the one BPF_LINK_CREATE call, for the function at this address of the kernel."""
    addresses = (c_uint64 * 1)(address)
    opts = _KprobeMultiOpts(sz=ctypes.sizeof(_KprobeMultiOpts), count=1, addresses=ctypes.addressof(addresses))
    number = _numbers("attach")["trace_kprobe_multi"]
    result = _library().bpf_link_create(program, 0, number, ctypes.byref(opts))
    return _fd(result, "attach", "kprobe.multi link", undo)


def raw_tracepoint(program: int, name: str | None, undo: ExitStack) -> int:
    """Make the one BPF_RAW_TRACEPOINT_OPEN call; without a name: to the function that the program was loaded for."""
    opened = _library().bpf_raw_tracepoint_open(name and name.encode(), program)
    return _fd(opened, "attach", f"raw tracepoint {name}", undo)


def cgroup(program: int, target: int, attach_type: str, undo: ExitStack) -> None:
    """Make the one BPF_PROG_ATTACH call; the target is a cgroup, for ``sk_msg_verdict`` a sockmap."""
    number = _numbers("attach")[attach_type]
    _done(_library().bpf_prog_attach(program, target, number, 0), "attach", attach_type)
    undo.callback(lambda: _done(_library().bpf_prog_detach2(program, target, number), "detach", attach_type))


def socket_filter(program: int, undo: ExitStack) -> None:
    """Attach to a socket of one's own by setsockopt."""
    own = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    try:
        own.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, program)
    except OSError as error:
        raise StepError(error.errno or 0, "attach", "socket") from error


def xdp_netlink(program: int, ifindex: int, undo: ExitStack) -> None:
    """Put onto an interface by netlink."""
    steps.xdp_attach(program, ifindex)
    undo.callback(steps.xdp_detach, ifindex)


def clsact(program: int, ifindex: int, undo: ExitStack) -> None:
    """Make the clsact qdisc and put a filter in it, by netlink (libbpf asks for the program's name in between)."""
    lib = _library()
    # BPF_TC_INGRESS
    hook = _TcHook(sz=ctypes.sizeof(_TcHook), ifindex=ifindex, attach_point=1)
    _done(lib.bpf_tc_hook_create(ctypes.byref(hook)), "attach", "clsact qdisc")
    both = _TcHook(sz=ctypes.sizeof(_TcHook), ifindex=ifindex, attach_point=3)
    undo.callback(lambda: _done(lib.bpf_tc_hook_destroy(ctypes.byref(both)), "detach", "clsact qdisc"))
    opts = _TcOpts(sz=ctypes.sizeof(_TcOpts), prog_fd=program)
    _done(lib.bpf_tc_attach(ctypes.byref(hook), ctypes.byref(opts)), "attach", "tc filter")


def pin(fd: int, path: Path, undo: ExitStack) -> None:
    """Make the one BPF_OBJ_PIN call."""
    _done(_library().bpf_obj_pin(fd, os.fsencode(path)), "pin", str(path))
    undo.callback(path.unlink)


def open_pin(path: Path, undo: ExitStack) -> int:
    """Make the one BPF_OBJ_GET call."""
    return _fd(_library().bpf_obj_get(os.fsencode(path)), "open", str(path), undo)


def open_by_id(kind: str, number: int, undo: ExitStack) -> int:
    """Make the one BPF_PROG_GET_FD_BY_ID or BPF_MAP_GET_FD_BY_ID call."""
    return _fd(getattr(_library(), f"bpf_{kind}_get_fd_by_id")(number), "open", f"{kind} {number}", undo)


def next_id(kind: str) -> int:
    """Make the one BPF_PROG_GET_NEXT_ID or BPF_MAP_GET_NEXT_ID call: the first step of listing."""
    number = c_uint32(0)
    _done(getattr(_library(), f"bpf_{kind}_get_next_id")(0, ctypes.byref(number)), "query", f"{kind} ids")
    return int(number.value)


def info(fd: int) -> bytes:
    """Make the one BPF_OBJ_GET_INFO_BY_FD call."""
    buffer, length = ctypes.create_string_buffer(64), c_uint32(64)
    _done(_library().bpf_obj_get_info_by_fd(fd, buffer, ctypes.byref(length)), "query", "info")
    return buffer.raw


def attached_to(target: int, attach_type: str) -> int:
    """Make the one BPF_PROG_QUERY call; return how many programs a cgroup has of that type."""
    count = c_uint32(0)
    number = _numbers("attach")[attach_type]
    result = _library().bpf_prog_query(target, number, 0, None, None, ctypes.byref(count))
    _done(result, "query", f"{attach_type} programs")
    return int(count.value)


def test_run(program: int) -> int:
    """Make the one BPF_PROG_TEST_RUN call with an empty frame; return what the program returns."""
    frame = ctypes.create_string_buffer(64)
    opts = library.TestRunOpts(
        sz=ctypes.sizeof(library.TestRunOpts), data_in=ctypes.addressof(frame), data_size_in=len(frame), repeat=1
    )
    _done(_library().bpf_prog_test_run_opts(program, ctypes.byref(opts)), "test_run", "program")
    return int(opts.retval)


def load_btf(undo: ExitStack, token: int | None = None) -> int:
    """Make the one BPF_BTF_LOAD call; return the fd."""
    opts = _BtfLoadOpts(
        sz=ctypes.sizeof(_BtfLoadOpts), btf_flags=0 if token is None else _TOKEN_FLAG, token_fd=token or 0
    )
    result = _library().bpf_btf_load(_BTF, len(_BTF), ctypes.byref(opts))
    return _fd(result, "load", "BTF", undo, token=token is not None)


def update(fd: int, value: bytes) -> None:
    """Make the one BPF_MAP_UPDATE_ELEM call, of the key 0 of a map with keys of four bytes."""
    _done(_library().bpf_map_update_elem(fd, bytes(4), value, 0), "update", "map")


def map_ringbuf(fd: int, size: int, undo: ExitStack) -> None:
    """Map a ring buffer as a consumer does: its own position writable, then the producer's and the data."""
    undo.enter_context(mmap.mmap(fd, mmap.PAGESIZE))
    undo.enter_context(mmap.mmap(fd, mmap.PAGESIZE + 2 * size, prot=mmap.PROT_READ, offset=mmap.PAGESIZE))
