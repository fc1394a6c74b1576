"""Struct layouts and enumerators from an object's own BTF: a struct or enum is written once, in C.

A frozen dataclass names the members to read. They must be exactly the members of the C struct, so that neither side
can change without the other. Offsets, sizes and signedness come from the BTF, and a member of an enum type is read as
the enumerator's name (kernel, Documentation/bpf/btf.rst).
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from kernel_matrix.guest.bpf.library import libbpf

# BTF_KIND_* of linux/btf.h
_INT, _ARRAY, _STRUCT, _ENUM, _TYPEDEF, _VOLATILE, _CONST, _FUNCTION = 1, 3, 4, 6, 8, 9, 10, 12
#: BTF_INT_SIGNED of an int's encoding
_SIGNED = 1

_R = TypeVar("_R")


class _Type(ctypes.Structure):
    """struct btf_type."""

    _fields_ = (("name", ctypes.c_uint32), ("info", ctypes.c_uint32), ("size", ctypes.c_uint32))


class _Member(ctypes.Structure):
    """struct btf_member."""

    _fields_ = (("name", ctypes.c_uint32), ("type", ctypes.c_uint32), ("offset", ctypes.c_uint32))


class _Enumerator(ctypes.Structure):
    """struct btf_enum."""

    _fields_ = (("name", ctypes.c_uint32), ("value", ctypes.c_int32))


class _Array(ctypes.Structure):
    """struct btf_array."""

    _fields_ = (("type", ctypes.c_uint32), ("index", ctypes.c_uint32), ("count", ctypes.c_uint32))


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a struct."""

    name: str
    #: bytes from the struct's start
    offset: int
    #: bytes
    size: int
    read: Callable[[bytes], Any]


class Btf:
    """An object's BTF; ``pointer`` is libbpf's ``struct btf *``, which the caller frees."""

    def __init__(self, pointer: int) -> None:
        self._pointer = pointer
        self._lib = libbpf()

    @classmethod
    @contextmanager
    def of_kernel(cls) -> Iterator[Btf]:
        """Yield the running kernel's BTF; raises OSError when it has none."""
        lib = libbpf()
        pointer = lib.btf__load_vmlinux_btf()
        if not pointer:
            raise OSError(ctypes.get_errno(), "the kernel's BTF")
        try:
            yield cls(pointer)
        finally:
            lib.btf__free(pointer)

    def names(self, struct: str) -> tuple[str, ...]:
        """Return the names of a struct's members of any type; raises KeyError as `members` does."""
        btf_type, _, data = self._type(self._find(struct))
        addresses = range(data, data + (btf_type.info & 0xFFFF) * ctypes.sizeof(_Member), ctypes.sizeof(_Member))
        offsets = [_Member.from_address(address).name for address in addresses]
        return tuple(self._lib.btf__name_by_offset(self._pointer, offset).decode() for offset in offsets)

    def members(self, struct: str) -> tuple[int, tuple[Member, ...]]:
        """Return a struct's size in bytes and its members; raises KeyError when the object has no such struct."""
        return self._struct(self._find(struct))

    def struct(self, name: str) -> tuple[int, int]:
        """Return a struct's type id and its size in bytes; raises KeyError when there is none."""
        number = self._find(name)
        return number, int(self._type(number)[0].size)

    def function(self, name: str) -> int:
        """Return a function's type id; raises KeyError when there is none."""
        return self._find(name, _FUNCTION)

    def arguments(self, function: str) -> int:
        """Return how many arguments a function has; raises KeyError when there is none of the name."""
        proto, _, _ = self._type(self._type(self.function(function))[0].size)
        return int(proto.info) & 0xFFFF

    def _find(self, name: str, kind: int = _STRUCT) -> int:
        number = int(self._lib.btf__find_by_name_kind(self._pointer, name.encode(), kind))
        if number < 0:
            raise KeyError(f"the BTF has no {'struct' if kind == _STRUCT else 'function'} {name}")
        return number

    def _type(self, number: int) -> tuple[_Type, int, int]:
        """Return a type, its kind and the address of its own data; typedefs and qualifiers are resolved."""
        while True:
            address = self._lib.btf__type_by_id(self._pointer, number)
            btf_type = _Type.from_address(address)
            kind = btf_type.info >> 24 & 0x1F
            if kind not in {_TYPEDEF, _VOLATILE, _CONST}:
                return btf_type, kind, address + ctypes.sizeof(_Type)
            number = btf_type.size

    def _struct(self, number: int) -> tuple[int, tuple[Member, ...]]:
        btf_type, _, data = self._type(number)
        members = []
        for index in range(btf_type.info & 0xFFFF):
            member = _Member.from_address(data + index * ctypes.sizeof(_Member))
            size, read = self._reader(member.type)
            name = self._lib.btf__name_by_offset(self._pointer, member.name).decode()
            members.append(Member(name, member.offset // 8, size, read))
        return btf_type.size, tuple(members)

    def _reader(self, number: int) -> tuple[int, Callable[[bytes], Any]]:
        """Return a type's size and a function that turns its bytes into a value."""
        btf_type, kind, data = self._type(number)
        if kind == _INT:
            encoding = ctypes.c_uint32.from_address(data).value >> 24
            signed = bool(encoding & _SIGNED)
            return btf_type.size, lambda raw: int.from_bytes(raw, "little", signed=signed)
        if kind == _ENUM:
            names = self._enumerators(btf_type, data)
            return btf_type.size, lambda raw: names[int.from_bytes(raw, "little", signed=True)]
        if kind == _ARRAY:
            array = _Array.from_address(data)
            size, read = self._reader(array.type)
            if size == 1 and self._is_char(array.type):
                return array.count, lambda raw: raw.partition(b"\0")[0].decode(errors="surrogateescape")
            return size * array.count, lambda raw: tuple(
                read(raw[start : start + size]) for start in range(0, len(raw), size)
            )
        raise TypeError(f"BTF kind {kind} has no reader")

    def _enumerators(self, btf_type: _Type, data: int) -> dict[int, str]:
        """Return an enum's names by their values; the reader raises KeyError for any other value."""
        count = btf_type.info & 0xFFFF
        enumerators = [_Enumerator.from_address(data + index * ctypes.sizeof(_Enumerator)) for index in range(count)]
        return {one.value: self._lib.btf__name_by_offset(self._pointer, one.name).decode() for one in enumerators}

    def _is_char(self, number: int) -> bool:
        """Whether a type is C's char: its encoding says so, or (clang) its name."""
        btf_type, kind, _ = self._type(number)
        return kind == _INT and self._lib.btf__name_by_offset(self._pointer, btf_type.name) == b"char"


class Layout(Generic[_R]):
    """The conversion of a C struct's bytes to a record."""

    def __init__(self, size: int, members: tuple[Member, ...], record: type[_R]) -> None:
        self.size = size
        self._members = members
        self._record = record

    @classmethod
    def of(cls, btf: Btf, struct: str, record: type[_R]) -> Layout[_R]:
        """Match a struct with a dataclass; raises TypeError when their members differ."""
        size, members = btf.members(struct)
        names = {field.name for field in dataclasses.fields(record)}  # type: ignore[arg-type]
        if names != {member.name for member in members}:
            difference = ", ".join(sorted(names ^ {member.name for member in members}))
            raise TypeError(f"struct {struct} and {record.__name__} differ in {difference}")
        return cls(size, members, record)

    def decode(self, data: bytes) -> _R:
        """Read one struct; raises ValueError when there are too few bytes (a ring buffer may add padding)."""
        if len(data) < self.size:
            raise ValueError(f"{len(data)} bytes, but {self._record.__name__} has {self.size}")
        return self._record(
            **{member.name: member.read(data[member.offset : member.offset + member.size]) for member in self._members}
        )
