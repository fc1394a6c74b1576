"""What an object needs, held against the files of kernels: nothing is loaded. Pure.

An answer is `no` only where the kernel's files prove it, and a kernel refuses a program "at" a step only where that
follows: a helper that a kernel lacks may be in code that is never reached there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kernel_matrix.objects import object_file, section_names
from kernel_matrix.objects.code import LDX, ST, STX, Instruction
from kernel_matrix.objects.needed import kernel_questions as ask
from kernel_matrix.objects.needed import needs
from kernel_matrix.objects.object_file import Extern, Function, ObjectFile
from kernel_matrix.objects.section_names import Section
from kernel_matrix.objects.types import context_reads, records, relocation
from kernel_matrix.objects.types.btf_ext import Relocation, RelocationKind
from kernel_matrix.objects.types.context_reads import ContextRead
from kernel_matrix.objects.types.kernel_types import KernelTypes
from kernel_matrix.objects.types.records import Record
from kernel_matrix.objects.types.relocation import RefusedError, Resolution, Resolver
from kernel_matrix.shared.bpf.btf import Btf, BtfError
from kernel_matrix.shared.bpf.compatibility import (
    VERSION,
    Answer,
    Compatibility,
    KernelColumn,
    Need,
    ProgramNeeds,
    Requirement,
    State,
)
from kernel_matrix.shared.errors import ManifestError

#: a 16-bit offset is all that a load or a store has
_FARTHEST = (1 << 15) - 1
_LOADS_AND_STORES = frozenset({LDX, ST, STX})
#: relocations that ask whether something is there
_ASKS = frozenset({
    RelocationKind.FIELD_EXISTS, RelocationKind.TYPE_EXISTS, RelocationKind.TYPE_MATCHES,
    RelocationKind.ENUMVAL_EXISTS,
})  # fmt: skip
#: what each relocation is about, for people
_ABOUT = {
    RelocationKind.FIELD_BYTE_OFFSET: "offset", RelocationKind.FIELD_BYTE_SIZE: "size",
    RelocationKind.FIELD_EXISTS: "exists", RelocationKind.FIELD_SIGNED: "signed",
    RelocationKind.FIELD_LSHIFT_U64: "left shift", RelocationKind.FIELD_RSHIFT_U64: "right shift",
    RelocationKind.TYPE_ID_LOCAL: "id in the object", RelocationKind.TYPE_ID_TARGET: "id in the kernel",
    RelocationKind.TYPE_EXISTS: "exists", RelocationKind.TYPE_SIZE: "size", RelocationKind.TYPE_MATCHES: "matches",
    RelocationKind.ENUMVAL_EXISTS: "exists", RelocationKind.ENUMVAL_VALUE: "value",
}  # fmt: skip

#: kernel -> its types; None: they could not be read
Kernels = Mapping[str, KernelTypes]


def of_object(data: bytes, name: str, columns: Sequence[KernelColumn], kernels: Kernels) -> Compatibility:
    """Return what an object needs and what the kernels have of it; raises ManifestError for another file."""
    file = object_file.read(data, name)
    try:
        return _of_file(file, data, name, columns, kernels)
    except (ValueError, LookupError, RecursionError) as error:
        raise ManifestError(f"{name}: not an object file that can be read: {error}") from error


def _of_file(
    file: ObjectFile, data: bytes, name: str, columns: Sequence[KernelColumn], kernels: Kernels
) -> Compatibility:
    collected = _Needs(kernels)
    programs = []
    for program in file.programs:
        used = needs.of_program(file, program)
        section = section_names.parse(program.section)
        _of_section(collected, program.name, section)
        _of_code(collected, file, program, used)
        _of_context(collected, file, program, section)
        programs.append(_program(file, program, section, sorted(used.maps)))
    everyone = tuple(program.name for program in file.programs)
    for kind in sorted(set(file.maps.values())):
        users = tuple(map_name for map_name, number in file.maps.items() if number == kind)
        _of_maps(collected, kind, users, everyone)
    _of_relocations(collected, file)
    return Compatibility(
        VERSION, name, hashlib.sha256(data).hexdigest(), tuple(columns), tuple(programs),
        {map_name: _map_type(kernels, number) for map_name, number in sorted(file.maps.items())},
        collected.requirements(), notes=tuple(_notes(file)),
    )  # fmt: skip


def _notes(file: ObjectFile) -> Iterator[str]:
    if file.btf is None:
        yield "the object has no BTF: it reads the kernel's structs where one kernel has their fields"
    if not file.extension.lines:
        yield "the object has no line information: its programs' sources are not known"


def _program(file: ObjectFile, program: Function, section: Section, maps: Sequence[str]) -> ProgramNeeds:
    lines = file.extension.lines.get(program.section, ())
    first = next((line for line in lines if program.start <= line.offset < program.end), None)
    return ProgramNeeds(
        program.name, program.section, section.type, section.attach, section.target,
        first.file if first else "", first.line if first else 0, tuple(maps),
    )  # fmt: skip


@dataclass(slots=True)
class _Needs:
    """The needs of all programs: one that several have is in it once."""

    kernels: Kernels
    _needed: dict[tuple[Need, str, bool], tuple[list[str], dict[str, Answer]]] = field(default_factory=dict)

    def add(
        self, need: Need, name: str, programs: Iterable[str], answers: Mapping[str, Answer], *, optional: bool = False
    ) -> None:
        """Add a need of programs."""
        users, _ = self._needed.setdefault((need, name, optional), ([], dict(answers)))
        users += [program for program in programs if program not in users]

    def ask(
        self, need: Need, name: str, program: str, question: Callable[[KernelTypes], Answer], *, optional: bool = False
    ) -> None:
        """Add a need of a program that each kernel answers by itself."""
        answers = {kernel: question(types) for kernel, types in self.kernels.items()}
        self.add(need, name, [program], answers, optional=optional)

    def requirements(self) -> tuple[Requirement, ...]:
        """Return all needs, by kind and name."""
        order = list(Need)
        file = (
            Requirement(need, name, tuple(programs), answers, optional)
            for (need, name, optional), (programs, answers) in self._needed.items()
        )
        return tuple(sorted(file, key=lambda one: (order.index(one.need), one.name)))


def _of_section(collected: _Needs, program: str, section: Section) -> None:
    if not section.type:
        return
    program_type = f"BPF_PROG_TYPE_{section.type}"
    collected.ask(Need.PROGRAM_TYPE, program_type, program, ask.has("bpf_prog_type", program_type, "load"))
    if section.attach:
        attach_type = f"BPF_{section.attach}"
        collected.ask(Need.ATTACH_TYPE, attach_type, program, ask.has("bpf_attach_type", attach_type, "attach"))
    if section.target and (question := ask.target(section)):
        collected.ask(Need.TARGET, f"{section.word}/{section.target}", program, question)


def _of_code(collected: _Needs, file: ObjectFile, program: Function, used: needs.Used) -> None:
    for number in sorted(used.helpers):
        name = _newest(collected.kernels, "bpf_func_id", number).replace("BPF_FUNC_", "bpf_") or f"helper {number}"
        reached = "refused where the call is reached"
        collected.ask(Need.HELPER, name, program.name, ask.numbered("bpf_func_id", number, reached))
    externs = {extern.name: extern for extern in file.externs}
    for name in sorted(used.functions | used.externs):
        extern = externs.get(name, Extern(name, ".ksyms", function=True, weak=False))
        need = Need.CONFIG if extern.section == ".kconfig" else Need.FUNCTION if extern.function else Need.SYMBOL
        questions = {Need.CONFIG: ask.option, Need.FUNCTION: ask.function, Need.SYMBOL: ask.symbol}
        collected.ask(need, name, program.name, questions[need](name), optional=extern.weak)


def _newest(kernels: Kernels, enumeration: str, number: int) -> str:
    """Return the name of a number, by the newest kernel that has one; empty when none has."""
    names = (types.named(enumeration, number) for types in reversed(list(kernels.values())))
    return next(filter(None, names), "")


def _map_type(kernels: Kernels, number: int) -> str:
    return _newest(kernels, "bpf_map_type", number).removeprefix("BPF_MAP_TYPE_") or str(number)


def _of_maps(collected: _Needs, kind: int, maps: Sequence[str], programs: Sequence[str]) -> None:
    """Add a type of map: a kernel that does not know it refuses the whole object."""
    question = ask.numbered("bpf_map_type", kind, "the object is refused", "load")
    answers = {kernel: question(types) for kernel, types in collected.kernels.items()}
    name = f"BPF_MAP_TYPE_{_map_type(collected.kernels, kind)} ({', '.join(maps)})"
    collected.add(Need.MAP_TYPE, name, programs, answers)


# -- relocations


def _of_relocations(collected: _Needs, file: ObjectFile) -> None:
    """Add the relocations, in the order of the file: libbpf tries fewer candidates after each."""
    if file.btf is None:
        return
    users: dict[Relocation, list[str]] = {}
    at: dict[Relocation, Instruction] = {}
    for program in file.programs:
        for record, one in needs.of_program(file, program).relocations:
            users.setdefault(record, []).append(program.name)
            at[record] = one
    resolvers = {kernel: Resolver(file.btf, types.btf) for kernel, types in collected.kernels.items()}
    for record in file.extension.relocations:
        answers = {kernel: _answer(resolver, record, at.get(record)) for kernel, resolver in resolvers.items()}
        if record in users and record.kind is not RelocationKind.TYPE_ID_LOCAL:
            collected.add(Need.RELOCATION, _about(file.btf, record), users[record], answers)


def _about(btf: Btf, record: Relocation) -> str:
    """Return what a relocation is about, as the object's source names it."""
    name = btf.spelled(record.type)
    try:
        access = relocation.parse(btf, record)
    except RefusedError:
        return f"{name}: {_ABOUT[record.kind]}"
    way = f"::{access.steps[0].name}" if record.kind.of_enumerator else access.path
    return f"{name}{way}: {_ABOUT[record.kind]}"


def _answer(resolver: Resolver, record: Relocation, one: Instruction | None) -> Answer:
    """Return what a relocation becomes on a kernel; ``one``: the instruction."""
    try:
        resolution = resolver.resolve(record)
    except (RefusedError, BtfError) as error:
        return Answer(State.NO, str(error), refused_at="load")
    if not resolution.target and not resolver.named(record):
        return Answer(State.UNKNOWN, f"no such type: {ask.UNREAD}", resolution.value)
    if resolution.value is None or not resolution.target:
        return Answer(State.NO, "no" if record.kind in _ASKS else "missing", resolution.value)
    if one is not None and one.group in _LOADS_AND_STORES:
        if resolution.value > _FARTHEST:
            return Answer(State.NO, f"{resolution.value}: too far for a load", resolution.value, refused_at="load")
        if not resolver.loads_alike(record, resolution):
            return Answer(State.NO, "of another size and signed: it cannot be read so", resolution.value)
    return Answer(State.YES, _text(record.kind, resolution), resolution.value)


def _text(kind: RelocationKind, resolution: Resolution) -> str:
    if kind in _ASKS:
        return "yes"
    if kind is RelocationKind.TYPE_ID_TARGET:
        # another number on each kernel, by design
        return ""
    return f"{resolution.value}" + (f" ({resolution.size} bytes)" if resolution.size is not None else "")


# -- the context


def _of_context(collected: _Needs, file: ObjectFile, program: Function, section: Section) -> None:
    """Add what a program reads of a context whose layout is the kernel's own business."""
    layouts = {kernel: records.of_program(section, types.btf) for kernel, types in collected.kernels.items()}
    known = {kernel: layout for kernel, layout in layouts.items() if layout is not None}
    if not known:
        return
    places = {(read.offset, read.size): read for read in context_reads.of_program(file, program)}
    relocated = {record.type for record in file.extension.relocations}
    for read in places.values():
        own = records.own_field(file.btf, program.name, read.offset, read.size, relocated)
        # a name that no kernel uses says nothing
        wanted = own if any(layout.place(own) is not None for layout in known.values()) else ""
        answers = {kernel: _context_answer(layout, read, wanted) for kernel, layout in layouts.items()}
        as_own = f", which the program takes for {own}" if own else ""
        name = f"{program.section}: bytes {read.offset} to {read.offset + read.size}{as_own}"
        collected.add(Need.CONTEXT, name, [program.name], answers)


def _context_answer(layout: Record | None, read: ContextRead, wanted: str) -> Answer:
    if layout is None:
        return Answer(State.UNKNOWN, f"the layout is not in its types: {ask.UNREAD}")
    end = read.offset + read.size
    if layout.end is not None and end > layout.end:
        return Answer(State.NO, f"behind the end, {layout.end} bytes", refused_at=layout.refused_at)
    there = layout.at(read.offset, read.size)
    if not wanted or there == wanted:
        return Answer(State.YES, there)
    place = layout.place(wanted)
    moved = f"{wanted} is at {place}" if place is not None else f"there is no {wanted}"
    return Answer(State.NO, f"{there}; {moved}")
