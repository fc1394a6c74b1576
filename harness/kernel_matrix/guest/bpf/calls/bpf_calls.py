"""Load and attach by file descriptor alone, for a process that did not open the object.

kernel_matrix.guest.bpf.steps works with libbpf's objects: it cannot attach a program that a process has just loaded, or
load with a token, and libbpf compares a program's type with the hook's before the kernel does. Here every function
makes one kernel call (attaching by perf or clsact: the few calls of that path) and raises StepError with the kernel's
errno. The `Undo` that the caller passes releases what is created.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import struct
from ctypes import c_char_p, c_uint32, c_uint64
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.guest.bpf import library, steps, structs
from kernel_matrix.guest.bpf.step_error import Stage, StepError
from kernel_matrix.guest.bpf.undo import Undo

#: asm-generic/socket.h
_SO_ATTACH_BPF = 50

#: BTF of one type, ``int``: struct btf_header, struct btf_type with an int's encoding, strings (linux/btf.h)
_BTF = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 16, 16, 5) + struct.pack("<IIII", 1, 1 << 24, 4, 32) + b"\0int\0"


def _fd(result: int, stage: Stage, what: str, undo: Undo, *, token: bool = False) -> int:
    """Return a new fd and let ``undo`` close it; ``token``: whether a BPF token was passed."""
    if result < 0:
        raise StepError(-result, stage, what, token=token)
    return _kept(result, undo)


def _kept(fd: int, undo: Undo) -> int:
    undo.callback(os.close, fd)
    return fd


def _done(result: int, stage: Stage, what: str) -> None:
    if result < 0:
        raise StepError(-result, stage, what)


@dataclass(frozen=True, slots=True)
class Loadable:
    """A program with all arguments of BPF_PROG_LOAD: relocated by libbpf, its maps open."""

    #: the fd of the program that is loaded already
    fd: int
    code: steps.Code
    expected_attach_type: int
    #: the type id, in the kernel's BTF, of the function that fentry or LSM attaches to; 0 for other types
    target: int

    @classmethod
    def of(cls, program: steps.Program, target: int = 0) -> Loadable:
        """Read a loaded program's attach type from libbpf; ``target``: the function it was loaded for."""
        expected = library.libbpf().bpf_program__expected_attach_type(program.pointer)
        return cls(program.fd, steps.Code.of(program), expected, target)


def load(loadable: Loadable, undo: Undo, token: int | None = None) -> int:
    """Make the one BPF_PROG_LOAD call; return the fd."""
    loaded = steps.load_code(
        loadable.code, expected_attach_type=loadable.expected_attach_type, target=loadable.target, token=token
    )
    return _kept(loaded, undo)


def create_map(spec: steps.MapSpec, undo: Undo, token: int | None = None, *, flags: int = 0) -> int:
    """Make the one BPF_MAP_CREATE call; return the fd."""
    return _kept(steps.create_map(spec, flags=flags, token=token), undo)


def link(program: int, target: int, attach_type: str, undo: Undo) -> int:
    """Make the one BPF_LINK_CREATE call, or BPF_RAW_TRACEPOINT_OPEN for tracing programs on kernels without it."""
    result = library.libbpf().bpf_link_create(program, target, steps.type_numbers("attach")[attach_type], None)
    return _fd(result, "attach", f"{attach_type} link", undo)


def kprobe_multi(program: int, address: int, undo: Undo) -> int:
    """Make the one BPF_LINK_CREATE call for the kernel function at this address."""
    addresses = (c_uint64 * 1)(address)
    opts = structs.KprobeMultiOpts(
        sz=ctypes.sizeof(structs.KprobeMultiOpts), count=1, addresses=ctypes.addressof(addresses)
    )
    number = steps.type_numbers("attach")["trace_kprobe_multi"]
    result = library.libbpf().bpf_link_create(program, 0, number, ctypes.byref(opts))
    return _fd(result, "attach", "kprobe.multi link", undo)


def kprobe_multi_by_name(program: int, symbol: str, undo: Undo) -> int:
    """Make the same call for a kernel function by its name, which the kernel looks up.

    libbpf compares a pattern with all that can be traced first, which takes a second where it is emulated.
    """
    symbols = (c_char_p * 1)(symbol.encode())
    opts = structs.KprobeMultiOpts(
        sz=ctypes.sizeof(structs.KprobeMultiOpts), count=1, symbols=ctypes.addressof(symbols)
    )
    number = steps.type_numbers("attach")["trace_kprobe_multi"]
    result = library.libbpf().bpf_link_create(program, 0, number, ctypes.byref(opts))
    return _fd(result, "attach", f"kprobe.multi link of {symbol}", undo)


def raw_tracepoint(program: int, name: str | None, undo: Undo) -> int:
    """Make the one BPF_RAW_TRACEPOINT_OPEN call; without a name it attaches to the program's own target."""
    opened = library.libbpf().bpf_raw_tracepoint_open(name and name.encode(), program)
    return _fd(opened, "attach", f"raw tracepoint {name}", undo)


def cgroup(program: int, target: int, attach_type: str, undo: Undo) -> None:
    """Make the one BPF_PROG_ATTACH call; the target is a cgroup, for ``sk_msg_verdict`` a sockmap."""
    number = steps.type_numbers("attach")[attach_type]
    _done(library.libbpf().bpf_prog_attach(program, target, number, 0), "attach", attach_type)
    undo.callback(lambda: _done(library.libbpf().bpf_prog_detach2(program, target, number), "detach", attach_type))


def socket_filter(program: int, undo: Undo) -> None:
    """Attach to a new socket by setsockopt."""
    own = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    try:
        own.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, program)
    except OSError as error:
        raise StepError(error.errno or 0, "attach", "socket") from error


def xdp_netlink(program: int, ifindex: int, undo: Undo) -> None:
    """Attach to an interface by netlink."""
    _done(library.libbpf().bpf_xdp_attach(ifindex, program, 0, None), "attach", "XDP")
    undo.callback(lambda: _done(library.libbpf().bpf_xdp_detach(ifindex, 0, None), "detach", "XDP"))


def clsact(program: int, ifindex: int, undo: Undo, *, egress: bool = False) -> None:
    """Create the clsact qdisc, if it is not there, and a filter in it, by netlink.

    libbpf queries the program's name in between.
    """
    lib = library.libbpf()
    # BPF_TC_INGRESS, BPF_TC_EGRESS; destroying the hook of both removes the qdisc
    hook = structs.TcHook(sz=ctypes.sizeof(structs.TcHook), ifindex=ifindex, attach_point=2 if egress else 1)
    result = lib.bpf_tc_hook_create(ctypes.byref(hook))
    if result != -errno.EEXIST:
        _done(result, "attach", "clsact qdisc")
        both = structs.TcHook(sz=ctypes.sizeof(structs.TcHook), ifindex=ifindex, attach_point=3)
        undo.callback(lambda: _done(lib.bpf_tc_hook_destroy(ctypes.byref(both)), "detach", "clsact qdisc"))
    opts = structs.TcOpts(sz=ctypes.sizeof(structs.TcOpts), prog_fd=program)
    _done(lib.bpf_tc_attach(ctypes.byref(hook), ctypes.byref(opts)), "attach", "tc filter")


def pin(fd: int, path: Path, undo: Undo) -> None:
    """Make the one BPF_OBJ_PIN call."""
    steps.pin(fd, path)
    undo.callback(path.unlink)


def open_pin(path: Path, undo: Undo) -> int:
    """Make the one BPF_OBJ_GET call."""
    return _kept(steps.open_pin(path), undo)


def open_by_id(kind: str, number: int, undo: Undo) -> int:
    """Make the one BPF_PROG_GET_FD_BY_ID or BPF_MAP_GET_FD_BY_ID call."""
    return _fd(getattr(library.libbpf(), f"bpf_{kind}_get_fd_by_id")(number), "open", f"{kind} {number}", undo)


def next_id(kind: str) -> int:
    """Make the one BPF_PROG_GET_NEXT_ID or BPF_MAP_GET_NEXT_ID call, the first step of listing."""
    number = c_uint32(0)
    _done(getattr(library.libbpf(), f"bpf_{kind}_get_next_id")(0, ctypes.byref(number)), "query", f"{kind} ids")
    return int(number.value)


def info(fd: int) -> bytes:
    """Make the one BPF_OBJ_GET_INFO_BY_FD call."""
    buffer, length = ctypes.create_string_buffer(64), c_uint32(64)
    _done(library.libbpf().bpf_obj_get_info_by_fd(fd, buffer, ctypes.byref(length)), "query", "info")
    return buffer.raw


def attached_to(target: int, attach_type: str) -> int:
    """Make the one BPF_PROG_QUERY call; return the number of a cgroup's programs of that type."""
    count = c_uint32(0)
    number = steps.type_numbers("attach")[attach_type]
    result = library.libbpf().bpf_prog_query(target, number, 0, None, None, ctypes.byref(count))
    _done(result, "query", f"{attach_type} programs")
    return int(count.value)


def test_run(program: int, size: int) -> int:
    """Make the one BPF_PROG_TEST_RUN call with a frame of so many zeros; return what the program returns."""
    frame = ctypes.create_string_buffer(size)
    opts = structs.TestRunOpts(
        sz=ctypes.sizeof(structs.TestRunOpts), data_in=ctypes.addressof(frame), data_size_in=len(frame), repeat=1
    )
    return _test_run(program, opts)


def test_run_raw_tracepoint(program: int, *arguments: int) -> int:
    """Make the one BPF_PROG_TEST_RUN call with a raw tracepoint's arguments; return what the program returns."""
    context = (ctypes.c_uint64 * len(arguments))(*arguments)
    opts = structs.TestRunOpts(
        sz=ctypes.sizeof(structs.TestRunOpts), ctx_in=ctypes.addressof(context), ctx_size_in=ctypes.sizeof(context)
    )
    return _test_run(program, opts)


def _test_run(program: int, opts: structs.TestRunOpts) -> int:
    _done(library.libbpf().bpf_prog_test_run_opts(program, ctypes.byref(opts)), "test_run", "program")
    return int(opts.retval)


def load_btf(undo: Undo, token: int | None = None) -> int:
    """Make the one BPF_BTF_LOAD call; return the fd."""
    opts = structs.BtfLoadOpts(
        sz=ctypes.sizeof(structs.BtfLoadOpts), btf_flags=0 if token is None else steps.TOKEN_FLAG, token_fd=token or 0
    )
    result = library.libbpf().bpf_btf_load(_BTF, len(_BTF), ctypes.byref(opts))
    return _fd(result, "load", "BTF", undo, token=token is not None)


def update(fd: int, value: bytes) -> None:
    """Make the one BPF_MAP_UPDATE_ELEM call, for the key 0 of a map with keys of four bytes."""
    _done(library.libbpf().bpf_map_update_elem(fd, bytes(4), value, 0), "update", "map")


def map_ringbuf(fd: int, size: int, undo: Undo) -> None:
    """Map a ring buffer as a consumer does: its own position writable, then the producer's and the data."""
    undo.enter_context(mmap.mmap(fd, mmap.PAGESIZE))
    undo.enter_context(mmap.mmap(fd, mmap.PAGESIZE + 2 * size, prot=mmap.PROT_READ, offset=mmap.PAGESIZE))
