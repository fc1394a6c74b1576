"""Struct_ops by single calls: a program of tcp_congestion_ops, and a map that holds such a struct.

As in kernel_matrix.guest.bpf.calls.bpf_calls, a refusal is a StepError, and the caller's `Undo` closes what is created.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass

from kernel_matrix.guest.bpf import library, structs
from kernel_matrix.guest.bpf.btf import Btf
from kernel_matrix.guest.bpf.calls import instructions
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.bpf.undo import Undo

#: BPF_PROG_TYPE_STRUCT_OPS and BPF_MAP_TYPE_STRUCT_OPS of linux/bpf.h
_PROGRAM_TYPE, _MAP_TYPE = 27, 26
#: BPF_F_TOKEN_FD of linux/bpf.h: use the rights of a token
_TOKEN_FLAG = 1 << 16
_STRUCT, _MEMBER = "tcp_congestion_ops", "ssthresh"
#: returns 0
_PROGRAM = instructions.mov(0, 0) + instructions.leave()


@dataclass(frozen=True, slots=True)
class StructOps:
    """The kernel's BTF of the struct."""

    number: int
    member: int
    #: type id and size in bytes of the struct that is the map's value
    value: tuple[int, int]
    #: an fd of any BTF: map_create() requires one, normally of the map's object, and does not read it
    btf: int

    @classmethod
    def of(cls, kernel: Btf, btf: int) -> StructOps:
        """Look the struct up; ``btf`` is the fd of any BTF."""
        member = kernel.names(_STRUCT).index(_MEMBER)
        return cls(kernel.struct(_STRUCT)[0], member, kernel.struct(f"bpf_struct_ops_{_STRUCT}"), btf)


def load(ops: StructOps, undo: Undo, token: int | None = None) -> int:
    """Make the one BPF_PROG_LOAD call; return the fd."""
    opts = structs.ProgLoadOpts(
        sz=ctypes.sizeof(structs.ProgLoadOpts),
        expected_attach_type=ops.member,
        attach_btf_id=ops.number,
        prog_flags=0 if token is None else _TOKEN_FLAG,
        token_fd=token or 0,
    )
    result = library.libbpf().bpf_prog_load(
        _PROGRAM_TYPE, b"step", b"GPL", _PROGRAM, len(_PROGRAM) // 8, ctypes.byref(opts)
    )
    if result < 0:
        raise StepError(-result, "load", _STRUCT, kind="struct_ops", token=token is not None)
    undo.callback(os.close, result)
    return int(result)


def create_map(ops: StructOps, undo: Undo, token: int | None = None) -> int:
    """Make the one BPF_MAP_CREATE call; return the fd."""
    number, size = ops.value
    opts = structs.MapCreateOpts(
        sz=ctypes.sizeof(structs.MapCreateOpts),
        btf_fd=ops.btf,
        btf_vmlinux_value_type_id=number,
        map_flags=0 if token is None else _TOKEN_FLAG,
        token_fd=token or 0,
    )
    result = library.libbpf().bpf_map_create(_MAP_TYPE, b"step", 4, size, 1, ctypes.byref(opts))
    if result < 0:
        raise StepError(-result, "map_create", _STRUCT, token=token is not None)
    undo.callback(os.close, result)
    return int(result)
