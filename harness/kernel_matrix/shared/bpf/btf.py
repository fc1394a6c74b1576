"""Read the types of a kernel or an object from its BTF, without libbpf and without a running kernel. Pure.

The format is linux/btf.h (kernel, Documentation/bpf/btf.rst). Types are decoded when they are asked for: a kernel has
more than a hundred thousand.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

_MAGIC = 0xEB9F
#: bytes of a header without the parts that later versions add
_HEADER = 24
#: bits of an enum's or a member's value
_WORD = 1 << 32
#: ``task_struct___old`` is a flavor of ``task_struct``: libbpf ignores what follows the last three underscores
_FLAVOR = re.compile(r"(.*[^_])___[^_].*", re.DOTALL)
#: bytes of a pointer on every kernel that has BTF and 64 bits
_POINTER = 8


class BtfError(ValueError):
    """What is read is no BTF, or of a kind that is not known here; the text is one line."""


class Kind(enum.IntEnum):
    """BTF_KIND_* of linux/btf.h."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


#: bytes behind a type of a kind: a fixed number, and one for each member
_FIXED = {Kind.INT: 4, Kind.ARRAY: 12, Kind.VAR: 4, Kind.DECL_TAG: 4}
_EACH = {
    Kind.STRUCT: 12, Kind.UNION: 12, Kind.ENUM: 8, Kind.FUNC_PROTO: 8, Kind.DATASEC: 12, Kind.ENUM64: 12,
}  # fmt: skip
COMPOSITE = frozenset({Kind.STRUCT, Kind.UNION})
ENUMS = frozenset({Kind.ENUM, Kind.ENUM64})
#: kinds that libbpf looks through when it compares types
_TRANSPARENT = frozenset({Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG})
#: how C spells types of a kind: the word before the name, and a type without one
_WORDS = {Kind.STRUCT: "struct ", Kind.UNION: "union ", Kind.ENUM: "enum ", Kind.ENUM64: "enum "}
_NAMELESS = {Kind.VOID: "void", Kind.FUNC_PROTO: "function"}
_SIZED = frozenset({Kind.INT, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64, Kind.DATASEC, Kind.FLOAT})


@dataclass(frozen=True, slots=True)
class Type:
    """One type; ``value`` is its size in bytes or the type that it refers to."""

    kind: Kind
    name: str
    value: int
    #: the number of members, enumerators or parameters
    count: int
    #: as the kind defines it: of a struct, whether it has bitfields; of an enum, whether it is signed
    flag: bool
    #: where its own data begins
    data: int


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a struct or union."""

    name: str
    type: int
    #: bits from the start
    offset: int
    #: bits of a bitfield, 0: no bitfield
    bits: int


@dataclass(frozen=True, slots=True)
class Array:
    """The own data of an array."""

    element: int
    length: int


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable in a section."""

    type: int
    offset: int
    size: int


def essential(name: str) -> str:
    """Return a type's name without its flavor."""
    match = _FLAVOR.fullmatch(name)
    return match[1] if match else name


class Btf:
    """All types, by their numbers; 0 is void.

    Of a module only the names can be asked: its types continue those of its kernel, ``base``.
    """

    def __init__(self, data: bytes, base: Btf | None = None) -> None:
        self._base = base
        self.order = "<" if data[:2] == _MAGIC.to_bytes(2, "little") else ">"
        try:
            magic, _, _, header, types, length, strings, strings_length = struct.unpack_from(
                f"{self.order}HBBIIIII", data
            )
        except struct.error as error:
            raise BtfError("no BTF: it is shorter than a header") from error
        if magic != _MAGIC or header < _HEADER:
            raise BtfError("no BTF: it begins with other bytes")
        self._types = data[header + types : header + types + length]
        self._strings = data[header + strings : header + strings + strings_length]
        if len(self._types) != length or len(self._strings) != strings_length:
            raise BtfError("the BTF is cut short")
        self._starts = self._index()

    def _index(self) -> list[int]:
        """Return where each type begins."""
        starts, position, end = [0], 0, len(self._types)
        unpack = struct.Struct(f"{self.order}4xI").unpack_from
        fixed = [_FIXED.get(Kind(kind), 0) + 12 if kind <= max(Kind) else 0 for kind in range(32)]
        each = [_EACH.get(Kind(kind), 0) if kind <= max(Kind) else 0 for kind in range(32)]
        try:
            while position < end:
                starts.append(position)
                (info,) = unpack(self._types, position)
                kind = info >> 24 & 0x1F
                if not fixed[kind]:
                    raise BtfError(f"the BTF has types of kind {kind}, which is not known here")
                position += fixed[kind] + (info & 0xFFFF) * each[kind]
        except struct.error as error:
            raise BtfError("the BTF ends within a type") from error
        if position != end:
            raise BtfError("the BTF ends within a type")
        return starts

    @property
    def string_bytes(self) -> int:
        """The length of all strings: a module's offsets go on behind its kernel's."""
        return len(self._strings)

    def __len__(self) -> int:
        """Return the number of types, with void."""
        return len(self._starts)

    def string(self, offset: int) -> str:
        """Return a string by its offset."""
        if self._base is not None:
            if offset < self._base.string_bytes:
                return self._base.string(offset)
            offset -= self._base.string_bytes
        end = self._strings.find(b"\0", offset)
        return self._strings[offset:end].decode(errors="replace")

    def type(self, number: int) -> Type:
        """Return a type; raises BtfError where there is none of that number."""
        if number == 0:
            return Type(Kind.VOID, "", 0, 0, flag=False, data=0)
        if not 0 < number < len(self._starts):
            raise BtfError(f"the BTF has no type {number}")
        start = self._starts[number]
        name, info, value = struct.unpack_from(f"{self.order}III", self._types, start)
        kind = Kind(info >> 24 & 0x1F)
        return Type(kind, self.string(name), value, info & 0xFFFF, flag=bool(info >> 31), data=start + 12)

    def plain(self, number: int) -> tuple[int, Type]:
        """Return a type without typedefs and qualifiers, and its number."""
        btf_type = self.type(number)
        for _ in range(len(self)):
            if btf_type.kind not in _TRANSPARENT:
                return number, btf_type
            number = btf_type.value
            btf_type = self.type(number)
        raise BtfError(f"type {number} of the BTF refers to itself")

    def members(self, of: Type) -> tuple[Member, ...]:
        """Return the members of a struct or union."""
        return tuple(
            Member(self.string(name), number, offset & 0xFFFFFF if of.flag else offset, offset >> 24 if of.flag else 0)
            for name, number, offset in self._each("III", of)
        )

    def enumerators(self, of: Type) -> tuple[tuple[str, int], ...]:
        """Return the names and values of an enum."""
        if of.kind is Kind.ENUM:
            return tuple((self.string(name), value) for name, value in self._each("Ii" if of.flag else "II", of))
        pairs = self._each("III", of)
        signed = -(_WORD * _WORD) if of.flag else 0
        values = ((name, low + high * _WORD, high >> 31) for name, low, high in pairs)
        return tuple((self.string(name), value + (signed if negative else 0)) for name, value, negative in values)

    def parameters(self, of: Type) -> tuple[tuple[str, int], ...]:
        """Return the names and types of a function's parameters; a variadic one has type 0."""
        return tuple((self.string(name), number) for name, number in self._each("II", of))

    def variables(self, of: Type) -> tuple[Variable, ...]:
        """Return the variables of a section."""
        return tuple(Variable(*words) for words in self._each("III", of))

    def declared(self, section: str) -> Iterator[Type]:
        """Yield the variables of a section, as the types that name them; none where there is no such section."""
        number = self.find(section, Kind.DATASEC)
        for variable in self.variables(self.type(number)) if number else ():
            yield self.type(variable.type)

    def _each(self, words: str, of: Type) -> Iterator[tuple[int, ...]]:
        layout = struct.Struct(self.order + words)
        return (layout.unpack_from(self._types, of.data + number * layout.size) for number in range(of.count))

    def array(self, of: Type) -> Array:
        """Return the own data of an array."""
        element, _, length = struct.unpack_from(f"{self.order}III", self._types, of.data)
        return Array(element, length)

    def integer(self, of: Type) -> int:
        """Return an integer's word: encoding in bits 24 to 27, offset in 16 to 23, bits in 0 to 7."""
        return int(struct.unpack_from(f"{self.order}I", self._types, of.data)[0])

    def signed(self, of: Type) -> bool:
        """Whether a type is a signed integer, or an enum with negative values."""
        if of.kind is Kind.INT:
            return bool(self.integer(of) >> 24 & 1)
        return of.kind in ENUMS and of.flag

    def size(self, number: int) -> int:
        """Return a type's bytes; raises BtfError where it has no size."""
        _, btf_type = self.plain(number)
        if btf_type.kind in _SIZED:
            return btf_type.value
        if btf_type.kind is Kind.PTR:
            return _POINTER
        if btf_type.kind is Kind.ARRAY:
            array = self.array(btf_type)
            return array.length * self.size(array.element)
        if btf_type.kind is Kind.VAR:
            return self.size(btf_type.value)
        raise BtfError(f"type {number} of the BTF has no size")

    @cached_property
    def _essential(self) -> dict[str, list[int]]:
        names: dict[str, list[int]] = {}
        for name, numbers in self._named.items():
            names.setdefault(essential(name), []).extend(numbers)
        return names

    @cached_property
    def _named(self) -> dict[str, list[int]]:
        """The numbers of all types with a name."""
        names: dict[str, list[int]] = {}
        unpack = struct.Struct(f"{self.order}I").unpack_from
        for number, start in enumerate(self._starts[1:], 1):
            (offset,) = unpack(self._types, start)
            if offset:
                names.setdefault(self.string(offset), []).append(number)
        return names

    def names(self, *kinds: Kind) -> frozenset[str]:
        """Return the names of all types of these kinds."""
        return frozenset(
            name for name, numbers in self._named.items() if any(self.type(number).kind in kinds for number in numbers)
        )

    def candidates(self, name: str) -> list[int]:
        """Return the types of all kinds that have that name, or a flavor of it, in the order of their numbers."""
        return sorted(self._essential.get(essential(name), ()))

    def find(self, name: str, *kinds: Kind) -> int:
        """Return the first type of that name and one of the kinds; 0 where there is none."""
        numbers = (number for number in self._named.get(name, ()) if self.type(number).kind in kinds)
        return next(numbers, 0)

    def named(self, start: str, kind: Kind) -> Iterator[tuple[str, int]]:
        """Yield the types of a kind whose names begin so: the rest of the name, and the number."""
        for name, numbers in self._named.items():
            if name.startswith(start):
                yield from ((name[len(start) :], number) for number in numbers if self.type(number).kind is kind)

    def tagged(self, tag: str) -> frozenset[int]:
        """Return the types that carry a declaration's tag."""
        tags = (self.type(number) for number in self._named.get(tag, ()))
        return frozenset(btf_type.value for btf_type in tags if btf_type.kind is Kind.DECL_TAG)

    def spelled(self, number: int) -> str:
        """Return a type as C spells it, without qualifiers: enough to tell two types from each other."""
        btf_type = self.type(number)
        if btf_type.kind is Kind.PTR:
            return f"{self.spelled(btf_type.value)} *".replace("* *", "**")
        if btf_type.kind is Kind.ARRAY:
            array = self.array(btf_type)
            return f"{self.spelled(array.element)}[{array.length}]"
        if btf_type.kind in _TRANSPARENT - {Kind.TYPEDEF}:
            return self.spelled(btf_type.value)
        if btf_type.kind is Kind.FWD:
            return f"{'union' if btf_type.flag else 'struct'} {btf_type.name}"
        return _WORDS.get(btf_type.kind, "") + (btf_type.name or _NAMELESS.get(btf_type.kind, "{...}"))
