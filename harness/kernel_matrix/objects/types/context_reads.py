"""Find what a program reads of its context at fixed offsets: the loads that no CO-RE relocation moves. Pure.

The program is followed, not run: a register or a place of the stack holds the context plus a number, a number, or
something else. Where two paths meet that disagree it is something else. So each read that is reported is one, and a
read through an address that was computed otherwise is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from kernel_matrix.objects import code
from kernel_matrix.objects.code import Instruction
from kernel_matrix.objects.object_file import SUBPROGRAMS, Function, ObjectFile

#: helpers that copy R2 bytes from the address in R3: bpf_probe_read, bpf_probe_read_user, bpf_probe_read_kernel
_COPIES = {4: "bpf_probe_read", 112: "bpf_probe_read_user", 113: "bpf_probe_read_kernel"}
#: how deep functions call each other: the kernel allows eight frames
_FRAMES = 8


@dataclass(frozen=True, slots=True)
class _Context:
    """An address within the context."""

    offset: int


@dataclass(frozen=True, slots=True)
class _Number:
    """A number that is known."""

    value: int


_Value = _Context | _Number
#: register, or negative offset from the frame's end -> what it holds, where that is known
_State = Mapping[int, _Value]


@dataclass(frozen=True, slots=True, order=True)
class ContextRead:
    """Bytes of the context that a program reads."""

    offset: int
    size: int
    #: the section of the instruction, and the bytes from its start
    section: str
    at: int
    #: the helper that reads; empty: the instruction itself
    helper: str = ""


def of_program(file: ObjectFile, program: Function) -> tuple[ContextRead, ...]:
    """Return what a program, and the functions to which it passes its context, read of it."""
    search = _Search(file, frozenset((one.section, one.offset) for one in file.extension.relocations))
    search.follow(program, {1: _Context(0)}, _FRAMES)
    return tuple(sorted(search.reads))


@dataclass(slots=True)
class _Search:
    file: ObjectFile
    #: section and offset of the instructions that a relocation changes
    relocated: AbstractSet[tuple[str, int]]
    reads: set[ContextRead] = field(default_factory=set)
    _followed: set[tuple[Function, frozenset[tuple[int, _Value]]]] = field(default_factory=set)

    def follow(self, function: Function, arguments: _State, frames: int) -> None:
        """Follow all paths of a function whose arguments are known in part."""
        key = function, frozenset(arguments.items())
        if frames == 0 or key in self._followed:
            return
        self._followed.add(key)
        text = self.file.code[function.section][function.start : function.end]
        instructions = {one.at: one for one in code.decode(text, self.file.order, function.start)}
        states: dict[int, _State] = {function.start: arguments}
        waiting = [function.start]
        while waiting:
            at = waiting.pop()
            if (one := instructions.get(at)) is None:
                continue
            after = self._after(function.section, one, states[at])
            for place in one.next:
                joined = after if place not in states else _joined(states[place], after)
                if place not in states or joined != states[place]:
                    states[place] = joined
                    waiting.append(place)
        # only now is it certain what every path agrees on
        for at, state in states.items():
            if (one := instructions.get(at)) is not None:
                self.reads.update(self._read(function.section, one, state))
                self._call(function.section, one, state, frames)

    def _read(self, section: str, one: Instruction, state: _State) -> Iterator[ContextRead]:
        base = state.get(one.src)
        if one.loads and isinstance(base, _Context) and (section, one.at) not in self.relocated:
            yield ContextRead(base.offset + one.off, one.width, section, one.at)
        if one.opcode == code.CALL and one.src == 0 and one.imm in _COPIES:
            source, size = state.get(3), state.get(2)
            if isinstance(source, _Context) and isinstance(size, _Number) and size.value > 0:
                yield ContextRead(source.offset, size.value, section, one.at, _COPIES[one.imm])

    def _call(self, section: str, one: Instruction, state: _State, frames: int) -> None:
        if one.opcode != code.CALL or one.src != code.OWN_FUNCTION:
            return
        target = called(self.file, section, one)
        arguments = {number: state[number] for number in range(1, 6) if number in state}
        if target is not None and any(isinstance(value, _Context) for value in arguments.values()):
            self.follow(target, arguments, frames - 1)

    def _after(self, section: str, one: Instruction, state: _State) -> _State:
        """Return what is known behind an instruction."""
        if one.opcode == code.CALL:
            return {place: value for place, value in state.items() if place not in range(6)}
        if one.group == code.STX and one.dst == code.STACK:
            return _stored(state, one.off, one.width, state.get(one.src) if one.opcode & 0xE0 == 0x60 else None)
        if one.group == code.ST and one.dst == code.STACK:
            return _stored(state, one.off, one.width, None)
        if one.group in {code.STX, code.ST, code.JMP, code.JMP32}:
            return state
        relocated = (section, one.at) in self.relocated
        return _with(state, one.dst, None if relocated else _result(one, state))


def called(file: ObjectFile, section: str, one: Instruction) -> Function | None:
    """Return the function of the object that an instruction calls, or whose address it takes."""
    link = file.links.get(section, {}).get(one.at)
    if link is None:
        # in the same section: the distance in instructions
        return file.function_at(section, one.at + (one.imm + 1) * code.INSTRUCTION)
    if not link.of_section:
        named = (function for function in file.functions if function.name == link.name)
        return next(named, None)
    # as libbpf: a call has the distance from the section's start, an address its bytes
    offset = (one.imm + 1) * code.INSTRUCTION if one.opcode == code.CALL else one.imm
    return file.function_at(link.section or SUBPROGRAMS, link.value + offset)


def _result(one: Instruction, state: _State) -> _Value | None:
    """Return what an instruction leaves in its register."""
    if one.loads and one.src == code.STACK and one.width == 8:
        return state.get(one.off) if one.off < 0 else None
    if one.group not in {code.ALU64, code.ALU}:
        return None
    operand = state.get(one.src) if one.from_register else _Number(one.imm)
    before = state.get(one.dst)
    if one.operation == code.MOVE and one.off == 0:
        return operand if one.group == code.ALU64 or isinstance(operand, _Number) else None
    if one.group == code.ALU64 and one.operation in {code.ADD, code.SUBTRACT} and isinstance(operand, _Number):
        change = operand.value if one.operation == code.ADD else -operand.value
        if isinstance(before, _Context):
            return _Context(before.offset + change)
        return _Number(before.value + change) if isinstance(before, _Number) else None
    return None


def _with(state: _State, place: int, value: _Value | None) -> _State:
    changed = {other: known for other, known in state.items() if other != place}
    return changed if value is None else changed | {place: value}


def _stored(state: _State, offset: int, width: int, value: _Value | None) -> _State:
    """Return what is known behind a store to the stack: it replaces all that it overlaps."""
    kept = {
        place: known for place, known in state.items() if place >= 0 or place + 8 <= offset or place >= offset + width
    }
    return kept | {offset: value} if value is not None and width == 8 else kept


def _joined(first: _State, second: _State) -> _State:
    return {place: value for place, value in first.items() if second.get(place) == value}
