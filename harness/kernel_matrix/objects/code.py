"""BPF instructions as data: what one does, for those who look at a program without running it. Pure.

An instruction is struct bpf_insn of linux/bpf.h; the opcodes are those of Documentation/bpf/standardization.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

#: bytes of an instruction
INSTRUCTION = 8
LD, LDX, ST, STX, ALU, JMP, JMP32, ALU64 = range(8)
CALL, EXIT, JUMP = 0x85, 0x95, 0x05
LOAD_WIDE = 0x18
MOVE, ADD, SUBTRACT = 0xB0, 0x00, 0x10
#: BPF_PSEUDO_CALL: a call of a function of the object; of a kernel's function: BPF_PSEUDO_KFUNC_CALL
OWN_FUNCTION, KERNEL_FUNCTION = 1, 2
#: BPF_PSEUDO_FUNC: the address of a function of the object, as an argument
FUNCTION_ADDRESS = 4
STACK = 10
_WIDTHS = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
#: BPF_MEM and BPF_MEMSX: loads through a register, the second one with its sign
_THROUGH_A_REGISTER = {0x60, 0x80}


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction."""

    #: bytes from the start of its section
    at: int
    opcode: int
    dst: int
    src: int
    off: int
    imm: int

    @property
    def group(self) -> int:
        """The class of its opcode."""
        return self.opcode & 7

    @property
    def operation(self) -> int:
        """The operation of an arithmetic one or a jump."""
        return self.opcode & 0xF0

    @property
    def from_register(self) -> bool:
        """Whether the second operand is a register, not a number."""
        return bool(self.opcode & 8)

    @property
    def width(self) -> int:
        """The bytes that a load or a store moves."""
        return _WIDTHS[self.opcode & 0x18]

    @property
    def loads(self) -> bool:
        """Whether it loads from the address in a register."""
        return self.group == LDX and self.opcode & 0xE0 in _THROUGH_A_REGISTER

    @property
    def length(self) -> int:
        """Its bytes; one that loads 64 bits is two instructions long."""
        return 2 * INSTRUCTION if self.opcode == LOAD_WIDE else INSTRUCTION

    @property
    def next(self) -> tuple[int, ...]:
        """Where execution goes on: none behind an exit, two places behind a condition."""
        behind = self.at + self.length
        if self.opcode == EXIT:
            return ()
        if self.group not in {JMP, JMP32} or self.opcode == CALL:
            return (behind,)
        if self.operation == 0:
            return (behind + (self.imm if self.group == JMP32 else self.off) * INSTRUCTION,)
        return (behind, behind + self.off * INSTRUCTION)


def decode(code: bytes, order: str, start: int = 0) -> Iterator[Instruction]:
    """Yield the instructions of a program whose first byte is at ``start`` of its section; raises ValueError."""
    if len(code) % INSTRUCTION:
        raise ValueError(f"{len(code)} bytes are no instructions")
    position = 0
    while position < len(code):
        opcode, registers, off, imm = struct.unpack_from(f"{order}BBhi", code, position)
        low, high = registers & 0xF, registers >> 4
        dst, src = (low, high) if order == "<" else (high, low)
        one = Instruction(start + position, opcode, dst, src, off, imm)
        yield one
        position += one.length
