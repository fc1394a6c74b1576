"""Read from an object file, without libbpf, which programs it has and which maps they use. Standard library only.

Collecting tests must give the same items on every kernel, and on a host without libbpf. So this reads what libbpf's
bpf_object__add_programs() reads: the symbols of the sections with code.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: elf.h: 64 bits and little endian, and the machine of BPF at this offset of an ELF header
_ELF, _EM_BPF, _MACHINE = b"\x7fELF\x02\x01", (247).to_bytes(2, "little"), 18
_SHT_PROGBITS, _SHT_SYMTAB, _SHT_REL = 1, 2, 9
_SHF_EXECINSTR = 4
_STT_FUNC = 2
#: the section whose variables are maps
_MAPS = ".maps"
#: those whose values are structs of function pointers
STRUCT_SECTIONS = (".struct_ops", ".struct_ops.link", "?.struct_ops", "?.struct_ops.link")
#: those of global variables
_VALUES = (".rodata", ".data", ".bss")
#: functions that programs call
_TEXT = ".text"


@dataclass(frozen=True, slots=True)
class BpfFile:
    """What an object file says of itself."""

    #: program -> its section, such as ``kprobe/do_x``, in the order of the sections
    programs: Mapping[str, str] = field(default_factory=dict)
    #: program -> the maps that its code, or a function of the object, names
    uses: Mapping[str, frozenset[str]] = field(default_factory=dict)
    #: map of programs -> the programs with which the file fills it
    tables: Mapping[str, frozenset[str]] = field(default_factory=dict)
    #: struct of function pointers (struct_ops) -> its programs
    structs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    #: global variable -> its section, its offset there and its size in bytes
    variables: Mapping[str, tuple[str, int, int]] = field(default_factory=dict)
    #: what the file takes from elsewhere, by name: functions and variables of the kernel, options
    externs: frozenset[str] = frozenset()

    def companions(self, program: str) -> frozenset[str]:
        """Return the programs that the kernel must have before this one runs: those of its tables and structs."""
        wanted, known = {program}, set[str]()
        while wanted - known:
            known |= wanted
            for name in known:
                for table in self.uses.get(name, frozenset()):
                    wanted |= self.tables.get(table, frozenset())
                for members in self.structs.values():
                    wanted |= members if name in members else set()
        return frozenset(wanted - {program})

    def users(self, of_map: str) -> tuple[str, ...]:
        """Return the programs that use a map."""
        return tuple(program for program in self.programs if of_map in self.uses.get(program, ()))


def is_object(path: Path) -> bool:
    """Whether a file is an object of BPF code that guests of this machine can load, whatever its name."""
    with path.open("rb") as file:
        head = file.read(_MACHINE + 2)
    return head[:6] == _ELF and head[_MACHINE:] == _EM_BPF


def read(path: Path) -> BpfFile:
    """Read an object file; one that is no 64-bit ELF object has no programs, and libbpf says why."""
    data = path.read_bytes()
    try:
        return _Elf(data).file()
    except (struct.error, IndexError, UnicodeDecodeError):
        return BpfFile()


def defined(data: bytes) -> frozenset[str]:
    """Return the names of the symbols that an object file, such as a module of the kernel, has itself."""
    return _Elf(data).defined()


def section(path: Path, name: str) -> bytes:
    """Return the bytes of a section of an object file; empty where it has none, or is no 64-bit ELF object."""
    data = path.read_bytes()
    try:
        own = next((one for one in _Elf(data).sections if one.name == name), None)
    except (struct.error, IndexError, ValueError):
        return b""
    return data[own.offset : own.offset + own.size] if own else b""


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int


@dataclass(frozen=True, slots=True)
class _Symbol:
    name: str
    is_function: bool
    section: int
    value: int
    size: int


class _Elf:
    """The sections and symbols of a relocatable file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        # EI_CLASS 2: 64 bits; EI_DATA 1: little endian
        if data[:5] != b"\x7fELF\x02":
            raise IndexError("not an ELF file of 64 bits")
        self._order = "<" if data[5] == 1 else ">"
        (start,) = self._unpack("Q", 0x28)
        size, count, names = self._unpack("HHH", 0x3A)
        raw = [self._unpack("IIQQQQIIQQ", start + number * size) for number in range(count)]
        strings = raw[names][4]
        self.sections = [_Section(self._string(strings + f[0]), *f[1:3], *f[4:8]) for f in raw]
        self.symbols = list(self._symbols())

    def file(self) -> BpfFile:
        """Return what the file says."""
        code = {
            number: section.name
            for number, section in enumerate(self.sections)
            if section.kind == _SHT_PROGBITS and section.flags & _SHF_EXECINSTR and section.name != _TEXT
        }
        functions = sorted(
            (symbol for symbol in self.symbols if symbol.is_function and symbol.section in code),
            key=lambda symbol: (symbol.section, symbol.value),
        )
        return BpfFile(
            {symbol.name: code[symbol.section] for symbol in functions},
            {symbol.name: frozenset(self._maps_of(symbol)) for symbol in functions},
            self._filled((_MAPS,)),
            self._filled(STRUCT_SECTIONS),
            {
                symbol.name: (self._section_name(symbol), symbol.value, symbol.size)
                for symbol in self.symbols
                if symbol.size and self._section_name(symbol).startswith(_VALUES)
            },
            frozenset(symbol.name for symbol in self.symbols if symbol.name and not symbol.section),
        )

    def defined(self) -> frozenset[str]:
        """Return the names of all symbols that the file has itself."""
        return frozenset(symbol.name for symbol in self.symbols if symbol.section)

    def _maps_of(self, function: _Symbol) -> Iterator[str]:
        """Yield the maps that a program names; with a call of a function of .text also all that those name."""
        for offset, symbol in self._relocations(function.section):
            if not function.value <= offset < function.value + function.size:
                continue
            if self._section_name(symbol) == _MAPS:
                yield symbol.name
            elif self._section_name(symbol) == _TEXT:
                yield from self._maps_of_text()

    def _maps_of_text(self) -> Iterator[str]:
        for number, section in enumerate(self.sections):
            if section.name == _TEXT:
                named = (symbol for _, symbol in self._relocations(number))
                yield from (symbol.name for symbol in named if self._section_name(symbol) == _MAPS)

    def _filled(self, names: tuple[str, ...]) -> dict[str, frozenset[str]]:
        """Return the variables of sections that the file fills with functions, and those."""
        filled: dict[str, set[str]] = {}
        for number, section in enumerate(self.sections):
            if section.name not in names:
                continue
            variables = [symbol for symbol in self.symbols if symbol.section == number and symbol.size]
            for offset, function in self._relocations(number):
                for variable in variables:
                    if function.is_function and variable.value <= offset < variable.value + variable.size:
                        filled.setdefault(variable.name, set()).add(function.name)
        return {name: frozenset(functions) for name, functions in filled.items()}

    def _relocations(self, of_section: int) -> Iterator[tuple[int, _Symbol]]:
        for section in self.sections:
            if section.kind == _SHT_REL and section.info == of_section:
                for place in range(section.offset, section.offset + section.size, 16):
                    offset, info = self._unpack("QQ", place)
                    yield offset, self.symbols[info >> 32]

    def _symbols(self) -> Iterator[_Symbol]:
        for section in self.sections:
            if section.kind != _SHT_SYMTAB:
                continue
            strings = self.sections[section.link].offset
            for place in range(section.offset, section.offset + section.size, 24):
                name, info, _, home, value, size = self._unpack("IBBHQQ", place)
                yield _Symbol(self._string(strings + name), info & 15 == _STT_FUNC, home, value, size)
            return

    def _section_name(self, symbol: _Symbol) -> str:
        return self.sections[symbol.section].name if symbol.section < len(self.sections) else ""

    def _unpack(self, layout: str, offset: int) -> tuple[int, ...]:
        # struct takes no offset of more than 63 bits
        if offset > len(self._data):
            raise IndexError("an offset behind the file's end")
        return struct.unpack_from(self._order + layout, self._data, offset)

    def _string(self, offset: int) -> str:
        end = self._data.find(b"\0", offset)
        if end < 0:
            raise IndexError("a string behind the file's end")
        return self._data[offset:end].decode()
