"""Read what an object's .BTF.ext says of its instructions: source lines and CO-RE relocations. Pure.

The format is kernel, Documentation/bpf/btf.rst, "BTF.ext": a header, then for each kind of information its record size,
and for each section its name, the number of records, and the records.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from kernel_matrix.shared.bpf.btf import Btf, BtfError

#: the line is in the upper bits of a word, the column in the lower ones (BPF_LINE_INFO_LINE_NUM of linux/btf.h)
_COLUMN_BITS = 10
#: bytes of the header without, and with, CO-RE relocations
_WITHOUT, _WITH = 24, 32


class RelocationKind(enum.IntEnum):
    """Values of enum bpf_core_relo_kind of linux/bpf.h."""

    FIELD_BYTE_OFFSET = 0
    FIELD_BYTE_SIZE = 1
    FIELD_EXISTS = 2
    FIELD_SIGNED = 3
    FIELD_LSHIFT_U64 = 4
    FIELD_RSHIFT_U64 = 5
    TYPE_ID_LOCAL = 6
    TYPE_ID_TARGET = 7
    TYPE_EXISTS = 8
    TYPE_SIZE = 9
    ENUMVAL_EXISTS = 10
    ENUMVAL_VALUE = 11
    TYPE_MATCHES = 12

    @property
    def of_field(self) -> bool:
        """Whether it is about a field."""
        return self <= RelocationKind.FIELD_RSHIFT_U64

    @property
    def of_enumerator(self) -> bool:
        """Whether it is about an enumerator."""
        return self in {RelocationKind.ENUMVAL_EXISTS, RelocationKind.ENUMVAL_VALUE}


@dataclass(frozen=True, slots=True)
class Relocation:
    """A value in an instruction that the loader takes from the kernel's BTF."""

    section: str
    #: bytes from the section's start
    offset: int
    #: in the object's BTF
    type: int
    #: indices that lead to a field, such as ``0:3:1``; the index of an enumerator; ``0`` for a type
    access: str
    kind: RelocationKind


@dataclass(frozen=True, slots=True)
class SourceLine:
    """The source of the instructions from one on."""

    #: bytes from the section's start
    offset: int
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Extension:
    """The content of a .BTF.ext that is used here."""

    #: section -> its lines, by their offsets
    lines: dict[str, tuple[SourceLine, ...]]
    #: in the order of the file
    relocations: tuple[Relocation, ...]


def read(data: bytes, btf: Btf) -> Extension:
    """Read a .BTF.ext section; raises BtfError."""
    order = btf.order
    try:
        header, _, _, line_start, line_length = struct.unpack_from(f"{order}4xIIIII", data)
        relocations: tuple[int, int] = (0, 0)
        if header >= _WITH:
            relocations = struct.unpack_from(f"{order}II", data, _WITHOUT)
        lines: dict[str, list[SourceLine]] = {}
        for section, words in _records(data, order, header + line_start, line_length, "IIII", btf):
            offset, file, _, position = words
            lines.setdefault(section, []).append(SourceLine(offset, btf.string(file), position >> _COLUMN_BITS))
        recorded = _records(data, order, header + relocations[0], relocations[1], "IIII", btf)
        relocated = tuple(
            Relocation(section, offset, number, btf.string(access), RelocationKind(kind))
            for section, (offset, number, access, kind) in recorded
        )
    except (struct.error, ValueError) as error:
        raise BtfError(f".BTF.ext: {error}") from error
    return Extension({section: tuple(records) for section, records in lines.items()}, relocated)


def _records(
    data: bytes, order: str, start: int, length: int, words: str, btf: Btf
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield each record of one kind of information with the name of its section."""
    if not length:
        return
    (size,) = struct.unpack_from(f"{order}I", data, start)
    position = start + 4
    while position < start + length:
        name, count = struct.unpack_from(f"{order}II", data, position)
        section = btf.string(name)
        position += 8
        for _ in range(count):
            yield section, struct.unpack_from(order + words, data, position)
            position += size
