"""Which names of an object a kernel itself does not have, and which a module has. Pure.

A name is ``func NAME``, ``type NAME`` or ``event NAME``, a tracepoint. libbpf looks for types and functions in the BTF
of the modules that are loaded, too (src/libbpf.c: find_kernel_btf_id, load_module_btfs).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping

from kernel_matrix.objects import section_names
from kernel_matrix.objects.needed import needs
from kernel_matrix.objects.object_file import ObjectFile
from kernel_matrix.objects.section_names import Section
from kernel_matrix.objects.types.btf_ext import RelocationKind
from kernel_matrix.shared.bpf.bpf_elf import STRUCT_SECTIONS
from kernel_matrix.shared.bpf.btf import COMPOSITE, ENUMS, Btf, BtfError, Kind, essential
from kernel_matrix.shared.bpf.object_table import ObjectSettings

# elf.h
_SHT_SYMTAB, _STT_FUNC, _STT_OBJECT = 2, 2, 1
_SECTION, _SYMBOL = struct.Struct("<IIQQQQIIQQ"), struct.Struct("<IBBHQQ")
#: include/linux/tracepoint-defs.h: the variable of each tracepoint, and the typedef by which BPF programs name it
_TRACEPOINT, _RAW_TRACEPOINT = b"__tracepoint_", "btf_trace_"
#: kernel/bpf/btf.c, bpf_struct_ops_find_value: the struct by which a kernel shows that it takes an operations' struct
_STRUCT_OPS = "bpf_struct_ops_"
_FUNCTIONS = frozenset({
    "kprobe", "kretprobe", "kprobe.multi", "kretprobe.multi", "kprobe.session", "fentry", "fexit", "fmod_ret",
    "fsession", "fentry.s", "fexit.s", "fmod_ret.s", "fsession.s",
})  # fmt: skip
_RAW = frozenset({"tp_btf", "raw_tp", "raw_tracepoint", "raw_tp.w", "raw_tracepoint.w"})
_EVENTS = frozenset({"tp", "tracepoint"})
_ITERATORS = frozenset({"iter", "iter.s"})
#: what a relocation may be about; a type that is only declared (FWD) is none
_TYPES = COMPOSITE | ENUMS | {Kind.TYPEDEF, Kind.INT, Kind.FLOAT}
#: tracepoints that no module has
_SYSCALLS = "syscalls"


def of_object(file: ObjectFile, settings: ObjectSettings) -> frozenset[str]:
    """Return the names that an object takes from the kernel: targets, functions to call, types, structs to register."""
    wanted: set[str] = set()
    for program in file.programs:
        section = section_names.parse(settings.sections.get(program.name) or program.section)
        wanted |= set(_target(section, settings.targets.get(program.name) or section.target))
        wanted |= {f"func {name}" for name in needs.of_program(file, program).functions}
    if file.btf is not None:
        wanted |= set(_types(file, file.btf)) | set(_registered(file.btf))
    return frozenset(wanted)


def _target(section: Section, target: str) -> Iterator[str]:
    name = target.partition("+")[0]
    if not name or set(name) & set("*?["):
        return
    if section.word in _FUNCTIONS:
        # the function of another program is in no module
        yield from () if ":" in name else (f"func {name}",)
    elif section.word in _RAW:
        yield f"type {_RAW_TRACEPOINT}{name}"
    elif section.word in _ITERATORS:
        yield f"func bpf_iter_{name}"
    elif section.word in _EVENTS:
        category, _, event = name.replace(":", "/").partition("/")
        if event and category != _SYSCALLS:
            yield f"event {event}"


def _types(file: ObjectFile, btf: Btf) -> Iterator[str]:
    """Yield the kernel's types that CO-RE relocations are about."""
    for relocation in file.extension.relocations:
        if relocation.kind is not RelocationKind.TYPE_ID_LOCAL and (name := btf.type(relocation.type).name):
            yield f"type {essential(name)}"


def _registered(btf: Btf) -> Iterator[str]:
    """Yield the types of the structs of operations."""
    for section in STRUCT_SECTIONS:
        for declared in btf.declared(section):
            _, of_variable = btf.plain(declared.value)
            yield f"type {_STRUCT_OPS}{essential(of_variable.name)}"


def plain(name: str) -> str:
    """Return a name as an object's source has it."""
    return name.partition(" ")[2].removeprefix(_RAW_TRACEPOINT).removeprefix(_STRUCT_OPS)


def missing(names: Iterable[str], kernel: Btf) -> frozenset[str]:
    """Return which names the kernel itself does not have."""
    return frozenset(name for name in names if not _has(kernel, *name.split(" ", 1)))


def _has(kernel: Btf, kind: str, name: str) -> bool:
    if kind == "func":
        return bool(kernel.find(name, Kind.FUNC))
    if kind == "event":
        return bool(kernel.find(_RAW_TRACEPOINT + name, Kind.TYPEDEF))
    return any(kernel.type(number).kind in _TYPES for number in kernel.candidates(name))


def of_module(content: bytes, kernel: Btf) -> Iterator[str]:
    """Yield the names that a module has: its functions, its tracepoints, and the types of its BTF."""
    sections = _sections(content)
    for number, (kind, offset, size, link) in sections.items():
        if kind == _SHT_SYMTAB:
            strings = sections[link]
            yield from _symbols(content[offset : offset + size], content[strings[1] : strings[1] + strings[2]])
        elif _name(content, number) == b".BTF":
            try:
                types = Btf(content[offset : offset + size], kernel)
            except BtfError:
                # of a kind that is not known here: libbpf would not read it either
                continue
            yield from sorted(f"type {name}" for name in types.names(*_TYPES))


def _symbols(table: bytes, strings: bytes) -> Iterator[str]:
    functions, events = set(), set()
    for name, info, _, section, _, _ in _SYMBOL.iter_unpack(table):
        kind = info & 15
        # section 0: it is another module's
        if not section or kind not in {_STT_FUNC, _STT_OBJECT}:
            continue
        text = strings[name : strings.index(b"\0", name)]
        if kind == _STT_FUNC:
            functions.add(text)
        elif text.startswith(_TRACEPOINT):
            events.add(text.removeprefix(_TRACEPOINT))
    yield from (f"func {name.decode()}" for name in sorted(functions))
    yield from (f"event {name.decode()}" for name in sorted(events))


def _sections(content: bytes) -> Mapping[int, tuple[int, int, int, int]]:
    """Return the sections of a module by number: type, offset, size, and the section that it refers to."""
    (start,) = struct.unpack_from("<Q", content, 0x28)
    size, count = struct.unpack_from("<HH", content, 0x3A)
    raw = [_SECTION.unpack_from(content, start + number * size) for number in range(count)]
    return {number: (fields[1], fields[4], fields[5], fields[6]) for number, fields in enumerate(raw)}


def _name(content: bytes, number: int) -> bytes:
    (start,) = struct.unpack_from("<Q", content, 0x28)
    size, _, names = struct.unpack_from("<HHH", content, 0x3A)
    strings = _SECTION.unpack_from(content, start + names * size)[4]
    begin = strings + _SECTION.unpack_from(content, start + number * size)[0]
    return content[begin : content.index(b"\0", begin)]
