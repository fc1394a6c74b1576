"""What an object does, as a digest: two objects with the same digest are the same program to kernel and reader.

It covers the sections, with their relocations and symbols, the types that readers take layouts from, and the CO-RE
relocations. It leaves out what a changed line of source alone changes: line numbers and the lines' texts.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import Section, SymbolTableSection

#: sections that are described otherwise
_DESCRIBED = (".BTF", ".symtab", ".strtab", ".shstrtab", ".rel", ".llvm_addrsig")
#: kind of a type -> bytes after its header, and bytes of each of its members (linux/btf.h)
_SIZES = {1: (4, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 13: (0, 8), 14: (4, 0), 15: (0, 12)}
_SIZES |= {17: (4, 0), 19: (0, 12)}
#: kinds whose members begin with a name: struct, union, enum, parameters, 64-bit enum
_NAMED_MEMBERS = frozenset({4, 5, 6, 13, 19})


def digest(path: Path) -> str:
    """Return the digest of an object file."""
    state = hashlib.sha256()
    with path.open("rb") as file:
        elf = ELFFile(file)
        for part in (*_sections(elf), *_btf(elf)):
            state.update(repr(part).encode() + b"\n")
    return state.hexdigest()


def _sections(elf: ELFFile) -> Iterator[tuple[object, ...]]:
    table = next(section for section in elf.iter_sections() if isinstance(section, SymbolTableSection))
    for section in elf.iter_sections():
        if isinstance(section, RelocationSection) and not section.name.startswith(".rel.BTF"):
            for entry in section.iter_relocations():
                symbol = table.get_symbol(entry["r_info_sym"])
                where = symbol.name or _section_name(elf, symbol["st_shndx"])
                yield section.name, entry["r_offset"], entry["r_info_type"], where, symbol["st_value"]
        elif not section.name.startswith(_DESCRIBED):
            yield section.name, section["sh_type"], section["sh_flags"], section.data()
    for symbol in table.iter_symbols():
        if symbol["st_info"]["type"] != "STT_SECTION" and symbol.name and not symbol.name.startswith("LBB"):
            info = symbol["st_info"]
            where = _section_name(elf, symbol["st_shndx"])
            yield symbol.name, info["bind"], info["type"], where, symbol["st_value"], symbol["st_size"]


def _section_name(elf: ELFFile, index: int | str) -> str:
    return str(elf.get_section(index).name) if isinstance(index, int) else index


def _btf(elf: ELFFile) -> Iterator[tuple[object, ...]]:
    types, relocations = elf.get_section_by_name(".BTF"), elf.get_section_by_name(".BTF.ext")
    if types is None:
        return
    data = types.data()
    header, type_offset, type_size, string_offset = struct.unpack_from("<4xIIII", data)
    strings = data[header + string_offset :]
    yield from _types(data[header + type_offset :][:type_size], strings)
    if relocations is not None:
        yield from _extra(relocations, strings)


def _string(strings: bytes, offset: int) -> str:
    return strings[offset : strings.index(b"\0", offset)].decode()


def _types(data: bytes, strings: bytes) -> Iterator[tuple[object, ...]]:
    at = 0
    while at < len(data):
        name, info, size = struct.unpack_from("<III", data, at)
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        fixed, each_member = _SIZES.get(kind, (0, 0))
        at += 12
        yield "type", _string(strings, name), info, size, data[at : at + fixed]
        at += fixed
        for _ in range(count if each_member else 0):
            member = data[at : at + each_member]
            if kind in _NAMED_MEMBERS:
                yield "member", _string(strings, struct.unpack_from("<I", member)[0]), member[4:]
            else:
                yield "member", member
            at += each_member


def _extra(section: Section, strings: bytes) -> Iterator[tuple[object, ...]]:
    """Yield functions and CO-RE relocations of .BTF.ext (kernel, Documentation/bpf/btf.rst); not the lines."""
    data = section.data()
    header, *places = struct.unpack_from("<4x7I", data)
    functions, _, relocations = zip(places[::2], places[1::2], strict=True) if len(places) == 6 else ((0, 0),) * 3
    for what, (offset, size) in (("function", functions), ("relocation", relocations)):
        start = header + offset
        yield from ((what, *record) for record in _records(data[start : start + size], strings, what))


def _records(data: bytes, strings: bytes, what: str) -> Iterator[tuple[object, ...]]:
    if not data:
        return
    (record_size,), at = struct.unpack_from("<I", data), 4
    while at < len(data):
        section, count = struct.unpack_from("<II", data, at)
        at += 8
        for _ in range(count):
            fields = struct.unpack_from(f"<{record_size // 4}I", data, at)
            at += record_size
            if what == "function":
                yield _string(strings, section), *fields
            else:
                instruction, type_id, access, kind = fields
                yield _string(strings, section), instruction, type_id, _string(strings, access), kind
