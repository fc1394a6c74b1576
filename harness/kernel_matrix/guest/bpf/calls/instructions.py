"""BPF instructions as bytes: enough of an assembler to write a program of a few lines that the verifier refuses.

An instruction is struct bpf_insn of linux/bpf.h: an opcode, the registers, an offset in instructions or bytes, and an
immediate. A program is the instructions' bytes, one after the other.
"""

from __future__ import annotations

import struct
from typing import Literal

Register = Literal[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
Width = Literal["b", "h", "w", "dw"]
Condition = Literal["==", ">", ">=", "!=", "<"]

#: BPF_MAXINSNS of linux/bpf_common.h: the most instructions that an unprivileged process may load
MAX_INSNS = 4096
#: BPF_COMPLEXITY_LIMIT_INSNS of the kernel's linux/bpf.h: the most that any process may load, or the verifier processes
COMPLEXITY_LIMIT = 1_000_000

# opcodes: linux/bpf_common.h and linux/bpf.h
_WIDTHS = {"w": 0x00, "h": 0x08, "b": 0x10, "dw": 0x18}
_CONDITIONS = {"==": 0x10, ">": 0x20, ">=": 0x30, "!=": 0x50, "<": 0xA0}
_PSEUDO_MAP_FD = 1


def raw(opcode: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    """Return one instruction, even an invalid one."""
    return struct.pack("<BBhi", opcode, dst | src << 4, off, imm)


def mov(dst: Register, imm: int) -> bytes:
    """Dst = imm."""
    return raw(0xB7, dst, imm=imm)


def copy(dst: Register, src: Register) -> bytes:
    """Dst = src."""
    return raw(0xBF, dst, src)


def add(dst: Register, imm: int) -> bytes:
    """Dst += imm."""
    return raw(0x07, dst, imm=imm)


def load(width: Width, dst: Register, src: Register, off: int = 0) -> bytes:
    """Dst = *(src + off)."""
    return raw(0x61 | _WIDTHS[width], dst, src, off)


def store(width: Width, dst: Register, off: int, imm: int) -> bytes:
    """*(dst + off) = imm."""
    return raw(0x62 | _WIDTHS[width], dst, off=off, imm=imm)


def load_map(dst: Register, fd: int) -> bytes:
    """Dst = the map of this file descriptor; two instructions long."""
    return raw(0x18, dst, _PSEUDO_MAP_FD, imm=fd) + raw(0)


def jump(off: int) -> bytes:
    """Jump `off` instructions past the next one."""
    return raw(0x05, off=off)


def jump_if(dst: Register, condition: Condition, imm: int, off: int) -> bytes:
    """Jump `off` instructions past the next one if the comparison of unsigned numbers holds."""
    return raw(0x05 | _CONDITIONS[condition], dst, off=off, imm=imm)


def jump_if_above(dst: Register, src: Register, off: int) -> bytes:
    """Jump `off` instructions past the next one if dst > src."""
    return raw(0x2D, dst, src, off)


def call(helper: int) -> bytes:
    """R0 = the result of the helper with this number; r1 to r5 are its arguments and undefined afterwards."""
    return raw(0x85, imm=helper)


def leave() -> bytes:
    """Return r0."""
    return raw(0x95)
