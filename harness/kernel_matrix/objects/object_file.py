"""Read an object file: its programs, the functions that they call, maps, and what it takes from the kernel. Pure.

What counts as a program or a map is what libbpf takes for one (src/libbpf.c: bpf_object__add_programs,
bpf_object__init_maps, bpf_object__collect_externs).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import Section, Symbol, SymbolTableSection

from kernel_matrix.objects.types import btf_ext
from kernel_matrix.objects.types.btf_ext import Extension, SourceLine
from kernel_matrix.shared.bpf.btf import Btf, Kind
from kernel_matrix.shared.bpf.object_types import declared_number, map_definitions
from kernel_matrix.shared.errors import ManifestError

#: the section of functions that programs call
SUBPROGRAMS = ".text"
#: SHF_EXECINSTR
_EXECUTABLE = 0x4
#: legacy maps: struct bpf_map_def begins with the type (libbpf up to 0.8)
_LEGACY_MAPS = "maps"


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the object."""

    name: str
    section: str
    #: bytes from the section's start
    start: int
    size: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class Link:
    """What an instruction refers to, which the loader fills in."""

    name: str
    #: the section of it; empty: it is not in the object
    section: str
    #: where in the section
    value: int
    #: whether the name is that of the section itself
    of_section: bool


@dataclass(frozen=True, slots=True)
class Extern:
    """What the object takes from the kernel by its name."""

    name: str
    #: ``.kconfig`` or ``.ksyms``
    section: str
    function: bool
    #: the object loads without it
    weak: bool


@dataclass(frozen=True, slots=True)
class ObjectFile:
    """An object file, as it is on disk."""

    programs: tuple[Function, ...]
    functions: tuple[Function, ...]
    #: section -> its bytes, of those with instructions
    code: Mapping[str, bytes]
    #: section -> bytes from its start -> what the instruction there refers to
    links: Mapping[str, Mapping[int, Link]]
    #: map -> the number of its type
    maps: Mapping[str, int]
    externs: tuple[Extern, ...]
    btf: Btf | None
    extension: Extension

    @property
    def order(self) -> str:
        """The byte order, as `struct` names it."""
        return self.btf.order if self.btf else "<"

    def function_at(self, section: str, offset: int) -> Function | None:
        """Return the function that an instruction belongs to."""
        inside = (one for one in self.functions if one.section == section and one.start <= offset < one.end)
        return next(inside, None)


def read(data: bytes, name: str) -> ObjectFile:
    """Read an object; raises ManifestError in one line for a file that is no BPF object, or is damaged."""
    with _opened(data, name) as elf:
        return _read(elf)


def read_lines(data: bytes, name: str) -> list[tuple[Function, tuple[SourceLine, ...]]]:
    """Return each program with the source lines of its section; raises ManifestError as `read` does.

    Relocations and maps, the most of what `read` reads, are not read.
    """
    with _opened(data, name) as elf:
        sections = list(elf.iter_sections())
        functions = _all_functions(_symbols(elf), _names(sections), _code(sections))
        _, extension = _btf(elf)
        return [(one, extension.lines.get(one.section, ())) for one in functions if one.section != SUBPROGRAMS]


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[ELFFile]:
    try:
        elf = ELFFile(io.BytesIO(data))
        if elf["e_machine"] != "EM_BPF":
            raise ManifestError(f"{name}: an object for {elf['e_machine']}, not for BPF")
        yield elf
    except (ELFError, ConstructError, OverflowError, ValueError, LookupError, RecursionError) as error:
        raise ManifestError(f"{name}: not an object file that can be read: {error}") from error


def _read(elf: ELFFile) -> ObjectFile:
    sections = list(elf.iter_sections())
    symbols, names, code = _symbols(elf), _names(sections), _code(sections)
    functions = _all_functions(symbols, names, code)
    links = {
        sections[section["sh_info"]].name: dict(_links(section, symbols, names))
        for section in sections
        if isinstance(section, RelocationSection)
    }
    types, extension = _btf(elf)
    return ObjectFile(
        tuple(one for one in functions if one.section != SUBPROGRAMS),
        functions,
        code,
        links,
        dict(_maps(elf, symbols, names, types)),
        tuple(_externs(symbols, types)),
        types,
        extension,
    )


def _btf(elf: ELFFile) -> tuple[Btf | None, Extension]:
    types, more = elf.get_section_by_name(".BTF"), elf.get_section_by_name(".BTF.ext")
    if types is None:
        return None, Extension({}, ())
    btf = Btf(types.data())
    return btf, Extension({}, ()) if more is None else btf_ext.read(more.data(), btf)


def _symbols(elf: ELFFile) -> list[Symbol]:
    table = elf.get_section_by_name(".symtab")
    return list(table.iter_symbols()) if isinstance(table, SymbolTableSection) else []


def _names(sections: list[Section]) -> dict[int, str]:
    return {number: section.name for number, section in enumerate(sections)}


def _code(sections: list[Section]) -> dict[str, bytes]:
    """Return the sections with instructions, in their order."""
    code = {section.name: section.data() for section in sections if section["sh_flags"] & _EXECUTABLE}
    return {section: data for section, data in code.items() if data}


def _all_functions(symbols: list[Symbol], names: Mapping[int, str], code: Mapping[str, bytes]) -> tuple[Function, ...]:
    """Return the functions in the order of the file."""
    order = list(code)
    functions = [
        Function(symbol.name, names[symbol["st_shndx"]], symbol["st_value"], symbol["st_size"])
        for symbol in symbols
        if symbol["st_info"]["type"] == "STT_FUNC" and names.get(symbol["st_shndx"], "") in code
    ]
    return tuple(sorted(functions, key=lambda one: (order.index(one.section), one.start)))


def _links(section: Section, symbols: list[Symbol], names: Mapping[int, str]) -> Iterator[tuple[int, Link]]:
    assert isinstance(section, RelocationSection)
    for relocation in section.iter_relocations():
        symbol = symbols[relocation["r_info_sym"]]
        target = names.get(symbol["st_shndx"], "")
        whole = symbol["st_info"]["type"] == "STT_SECTION"
        yield relocation["r_offset"], Link(target if whole else symbol.name, target, symbol["st_value"], whole)


def _maps(
    elf: ELFFile, symbols: list[Symbol], names: Mapping[int, str], types: Btf | None
) -> Iterator[tuple[str, int]]:
    """Yield the maps and the numbers of their types: those of BTF, those of the old form, those of global data."""
    legacy = elf.get_section_by_name(_LEGACY_MAPS)
    order: Literal["little", "big"] = "little" if elf.little_endian else "big"
    for symbol in symbols:
        if legacy is not None and names.get(symbol["st_shndx"]) == _LEGACY_MAPS and symbol.name:
            start = symbol["st_value"]
            yield symbol.name, int.from_bytes(legacy.data()[start : start + 4], order)
    if types is None:
        return
    for section in (".maps", ".maps.extern"):
        for name, parts in map_definitions(types, section):
            if "type" in parts:
                yield name, declared_number(types, parts, "type")
    for data in elf.iter_sections():
        if data.name.startswith((".data", ".rodata", ".bss")) and data["sh_size"]:
            yield data.name, _ARRAY


#: BPF_MAP_TYPE_ARRAY: global variables are the only value of an array
_ARRAY = 2


def _externs(symbols: list[Symbol], types: Btf | None) -> Iterator[Extern]:
    """Yield what the sections .kconfig and .ksyms of the BTF declare."""
    weak = {symbol.name for symbol in symbols if symbol["st_info"]["bind"] == "STB_WEAK"}
    if types is None:
        return
    for section in (".kconfig", ".ksyms"):
        for declared in types.declared(section):
            yield Extern(declared.name, section, declared.kind is Kind.FUNC, declared.name in weak)
