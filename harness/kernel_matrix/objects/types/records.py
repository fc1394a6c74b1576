"""The layout of what a tracing program gets as its context, on a kernel: a tracepoint's record, or arguments. Pure.

A tracepoint's record is the struct trace_event_raw_CLASS that the kernel's TRACE_EVENT macros make (include/trace/), of
a system call's tracepoint one of kernel/trace/trace.h. Other programs get an array of 64-bit arguments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from kernel_matrix.objects.section_names import Section
from kernel_matrix.shared.bpf.btf import COMPOSITE, Btf, Kind, Type

_RECORD, _WRITER, _TYPEDEF = "trace_event_raw_", "trace_event_raw_event_", "btf_trace_"
_OF_SYSCALLS = {"sys_enter_": "syscall_trace_enter", "sys_exit_": "syscall_trace_exit"}
#: bytes of an argument in the context
_ARGUMENT = 8
#: perf_trace_run_bpf_submit() of the kernel puts an address over the first bytes of each record, on all kernels
_HIDDEN_BYTES, _HIDDEN = 8, "the address of the registers"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a record."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Record:
    """A context's layout."""

    #: by their offsets
    parts: tuple[Part, ...]
    #: the first byte that a program may not read; None: that depends on the event
    end: int | None
    #: where a program that reads behind the end is refused
    refused_at: str

    def at(self, offset: int, size: int) -> str:
        """Return the name of what is at a place; a part of a field, or several fields, are named as such."""
        touched = [part for part in self.parts if part.offset < offset + size and offset < part.offset + part.size]
        if not touched:
            return "no field"
        first = touched[0]
        if len(touched) == 1 and (first.offset, first.size) == (offset, size):
            return first.name
        if len(touched) == 1:
            return f"bytes {offset - first.offset} to {offset - first.offset + size} of {first.name}"
        return " and ".join(part.name for part in touched)

    def place(self, name: str) -> int | None:
        """Return the offset of the field of that name; None: there is none."""
        return next((part.offset for part in self.parts if part.name == name), None)


def of_program(section: Section, btf: Btf) -> Record | None:
    """Return the context of a program of this section; None: it is a stable one, or the types do not say it."""
    _, _, event = section.target.partition("/")
    if section.type == "TRACEPOINT" and event:
        return _tracepoint(event, btf)
    function = _function(section, btf)
    if not function:
        return None
    hidden = section.type in {"RAW_TRACEPOINT", "RAW_TRACEPOINT_WRITABLE"} or section.attach == "TRACE_RAW_TP"
    parts, end = _arguments(btf, btf.type(function), first=1 if hidden else 0)
    if section.attach in {"TRACE_FEXIT", "TRACE_FSESSION", "MODIFY_RETURN"}:
        parts.append(Part(f"{btf.spelled(btf.type(function).value)} (returned)", end, _ARGUMENT))
        end += _ARGUMENT
    return Record(tuple(parts), end, "attach" if section.type.startswith("RAW") else "load")


def _function(section: Section, btf: Btf) -> int:
    """Return the prototype of what a program is attached to; 0: unknown."""
    target = section.target
    if section.type.startswith("RAW_TRACEPOINT") or section.attach == "TRACE_RAW_TP":
        _, pointer = btf.plain(btf.find(_TYPEDEF + target, Kind.TYPEDEF))
        return pointer.value if pointer.kind is Kind.PTR else 0
    prefix = {"LSM_MAC": "bpf_lsm_", "LSM_CGROUP": "bpf_lsm_"}.get(section.attach, "")
    if section.attach not in {"TRACE_FENTRY", "TRACE_FEXIT", "TRACE_FSESSION", "MODIFY_RETURN"} and not prefix:
        return 0
    number = btf.find(prefix + target, Kind.FUNC)
    return btf.type(number).value if number else 0


def _arguments(btf: Btf, function: Type, *, first: int) -> tuple[list[Part], int]:
    """Return the arguments from the first one on, and the bytes of all."""
    parts, offset = [], 0
    for name, number in btf.parameters(function)[first:]:
        if number == 0:
            continue
        _, btf_type = btf.plain(number)
        # a struct that is passed by its value takes as many words as it has
        size = -(-btf.size(number) // _ARGUMENT) * _ARGUMENT if btf_type.kind in COMPOSITE else _ARGUMENT
        parts.append(Part(f"{btf.spelled(number)} {name}".strip(), offset, size))
        offset += size
    return parts, offset


def _tracepoint(event: str, btf: Btf) -> Record | None:
    for start, struct in _OF_SYSCALLS.items():
        if event.startswith(start):
            number = btf.find(struct, Kind.STRUCT)
            # how many arguments a system call has is not in the types
            return Record(_seen(btf, number), None, "attach") if number else None
    number = btf.find(_RECORD + event, Kind.STRUCT) or _record_of_class(event, btf)
    if not number:
        return None
    parts = _seen(btf, number)
    # trace_event_get_offsets() of the kernel: the end of the last field, whatever pads the struct
    return Record(parts, max((part.offset + part.size for part in parts), default=0), "attach")


def _record_of_class(event: str, btf: Btf) -> int:
    """Return the record of an event of a class: the only one whose writer has the event's parameters; 0: unknown."""
    _, pointer = btf.plain(btf.find(_TYPEDEF + event, Kind.TYPEDEF))
    if pointer.kind is not Kind.PTR:
        return 0
    wanted = _parameters(btf, pointer.value)
    fitting = [
        name for name, number in btf.named(_WRITER, Kind.FUNC) if _parameters(btf, btf.type(number).value) == wanted
    ]
    records = {btf.find(_RECORD + name, Kind.STRUCT) for name in fitting}
    return records.pop() if len(records) == 1 else 0


def _parameters(btf: Btf, function: int) -> list[str]:
    """Return a prototype's parameters behind the first one, which is the tracepoint's own."""
    return [f"{btf.spelled(number)} {name}" for name, number in btf.parameters(btf.type(function))[1:]]


def _seen(btf: Btf, number: int) -> tuple[Part, ...]:
    """Return the fields of a record that a program sees."""
    fields = (part for part in _fields(btf, number) if part.offset + part.size > _HIDDEN_BYTES)
    return (Part(_HIDDEN, 0, _HIDDEN_BYTES), *fields)


def _fields(btf: Btf, number: int) -> Iterator[Part]:
    """Yield the fields of a record; those of its common head as the format file names them."""
    for member in btf.members(btf.type(number)):
        _, btf_type = btf.plain(member.type)
        if btf_type.name == "trace_entry":
            for inner in btf.members(btf_type):
                yield Part(f"common_{inner.name}", inner.offset // 8, btf.size(inner.type))
        elif btf_type.kind is Kind.ARRAY and (member.name == "args" or not btf.array(btf_type).length):
            # of a system call: any number of words; behind all fields: what __data_loc words refer to
            if member.name == "args":
                yield from (Part(f"args[{index}]", member.offset // 8 + 8 * index, 8) for index in range(6))
        else:
            yield Part(_DATA_LOC.sub("", member.name), member.offset // 8, btf.size(member.type))


#: a word that says where the field's data is
_DATA_LOC = re.compile("^__data_loc_")


def own_field(btf: Btf | None, program: str, offset: int, size: int, relocated: AbstractSet[int]) -> str:
    """Return how the program itself names what it reads, by the struct that it declares for its context; else empty.

    ``relocated``: types whose fields are relocated: where such a struct has a field says nothing.
    """
    number = btf.find(program, Kind.FUNC) if btf else 0
    if btf is None or not number:
        return ""
    parameters = btf.parameters(btf.type(btf.type(number).value))
    _, pointer = btf.plain(parameters[0][1]) if parameters else (0, btf.type(0))
    struct, btf_type = btf.plain(pointer.value) if pointer.kind is Kind.PTR else (0, pointer)
    if btf_type.kind is not Kind.STRUCT or struct in relocated or offset < _HIDDEN_BYTES:
        return ""
    for member in btf.members(btf_type):
        if member.bits == 0 and member.offset == offset * 8 and btf.size(member.type) == size:
            return member.name
    return ""
