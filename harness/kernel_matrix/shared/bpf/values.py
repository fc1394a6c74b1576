"""Values of C as their types in BTF describe them: read from bytes, written as keys, compared with what a table says.

A struct is a dict, an array a list, an array of char text without what follows its first NUL, an enumerator its name.
``__be16``, ``__be32`` and ``__be64`` are numbers in network order. Pure.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kernel_matrix.shared.bpf.btf import COMPOSITE, ENUMS, Btf, BtfError, Kind, Type
from kernel_matrix.shared.bpf.scenario import shown

#: numbers in network order, by the names of their types (linux/types.h)
_NETWORK_ORDER = frozenset({"__be16", "__be32", "__be64"})
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_FLOATS = {4: "f", 8: "d"}
_Order = Literal["little", "big"]


class ValueMismatch(ValueError):
    """A value that is no value of a type; the text is one line."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a struct or union, those of its nameless members included."""

    name: str
    type: int
    #: bits from the start
    offset: int
    #: bits of a bitfield, 0: no bitfield
    bits: int


@dataclass(frozen=True, slots=True)
class Values:
    """Reads and writes the values of an object's types."""

    types: Btf

    @property
    def _order(self) -> _Order:
        return "little" if self.types.order == "<" else "big"

    def members(self, number: int, base: int = 0) -> Iterator[Member]:
        """Yield the members of a struct or union."""
        _, btf_type = self.types.plain(number)
        for member in self.types.members(btf_type):
            if member.name:
                yield Member(member.name, member.type, base + member.offset, member.bits)
            elif self.types.plain(member.type)[1].kind in COMPOSITE:
                yield from self.members(member.type, base + member.offset)

    def _order_of(self, number: int) -> _Order:
        """Return the byte order of a number; ``__be32`` is a typedef that says it."""
        for _ in range(len(self.types)):
            btf_type = self.types.type(number)
            if btf_type.kind is Kind.TYPEDEF and btf_type.name in _NETWORK_ORDER:
                return "big"
            if btf_type.kind not in {Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.TYPE_TAG}:
                break
            number = btf_type.value
        return self._order

    def is_text(self, number: int) -> bool:
        """Whether a type is an array of char."""
        _, btf_type = self.types.plain(number)
        if btf_type.kind is not Kind.ARRAY:
            return False
        _, element = self.types.plain(self.types.array(btf_type).element)
        return element.kind is Kind.INT and element.name == "char"

    def read(self, number: int, data: bytes) -> Any:  # noqa: ANN401 - a value of C
        """Return a value; raises BtfError for bytes that are too few, or a type that has no values."""
        size = self.types.size(number)
        if len(data) < size:
            raise BtfError(f"{len(data)} bytes, but {self.types.spelled(number)} has {size}")
        _, btf_type = self.types.plain(number)
        if btf_type.kind in COMPOSITE:
            return {member.name: self._member(member, data) for member in self.members(number)}
        if btf_type.kind is Kind.ARRAY:
            if self.is_text(number):
                return data[:size].partition(b"\0")[0].decode(errors="backslashreplace")
            array = self.types.array(btf_type)
            step = self.types.size(array.element)
            return [self.read(array.element, data[at * step : (at + 1) * step]) for at in range(array.length)]
        if btf_type.kind is Kind.FLOAT and size in _FLOATS:
            return struct.unpack_from(self.types.order + _FLOATS[size], data)[0]
        value = int.from_bytes(data[:size], self._order_of(number), signed=self.types.signed(btf_type))
        if btf_type.kind in ENUMS:
            return next((name for name, known in self.types.enumerators(btf_type) if known == value), value)
        return value

    def _member(self, member: Member, data: bytes) -> Any:  # noqa: ANN401 - a value of C
        if not member.bits:
            return self.read(member.type, data[member.offset // 8 :])
        # a bitfield may begin within a byte: bits count from the low end, on a big-endian machine from the high one
        start, end = member.offset // 8, (member.offset + member.bits + 7) // 8
        whole = int.from_bytes(data[start:end], self._order)
        shift = member.offset % 8 if self._order == "little" else end * 8 - member.offset - member.bits
        value = whole >> shift & (1 << member.bits) - 1
        negative = self._signed(member.type) and value >> member.bits - 1
        return value - (1 << member.bits) if negative else value

    def _signed(self, number: int) -> bool:
        return self.types.signed(self.types.plain(number)[1])

    def wanted(self, number: int, value: Any, where: str, *, numbers: bool = False) -> Any:  # noqa: ANN401
        """Return what `read` returns where a value is as declared; of a struct only the members that are declared.

        ``numbers``: it is a sum or a difference. Raises ValueMismatch for what is no value of the type.
        """
        _, btf_type = self.types.plain(number)
        if isinstance(value, str) and not self.is_text(number) and btf_type.kind not in ENUMS:
            return self.read(number, self._address(number, value, where))
        if btf_type.kind in COMPOSITE:
            return self._wanted_members(number, value, where, numbers=numbers)
        if numbers and (btf_type.kind in ENUMS or self.is_text(number)):
            raise ValueMismatch(f"{where}: {self.types.spelled(number)} has no sums and differences")
        if btf_type.kind is Kind.ARRAY:
            return self._wanted_elements(number, value, where, numbers=numbers)
        if btf_type.kind in ENUMS and isinstance(value, str):
            return self._wanted_name(btf_type, value, where)
        return self._wanted_number(number, value, where, numbers=numbers)

    def _wanted_number(self, number: int, value: Any, where: str, *, numbers: bool) -> Any:  # noqa: ANN401
        if self.types.plain(number)[1].kind is Kind.FLOAT and isinstance(value, int | float):
            return float(value)
        if not isinstance(value, int):
            raise ValueMismatch(f"{where}: {shown(value)} is no {self.types.spelled(number)}")
        return int(value) if numbers else self.read(number, self._written_number(number, value, where))

    def _wanted_name(self, btf_type: Type, value: str, where: str) -> str:
        names = [name for name, _ in self.types.enumerators(btf_type)]
        if value not in names:
            listed = ", ".join(names)
            raise ValueMismatch(f"{where}: enum {btf_type.name} has no {value} (it has: {listed})")
        return value

    def _wanted_members(self, number: int, value: Any, where: str, *, numbers: bool) -> dict[str, Any]:  # noqa: ANN401
        known = {member.name: member for member in self.members(number)}
        spelled = self.types.spelled(number)
        if not isinstance(value, dict):
            raise ValueMismatch(f"{where}: {shown(value)} is no {spelled} (its members: {', '.join(known)})")
        for name in value:
            if name not in known:
                raise ValueMismatch(f"{where}: {spelled} has no member {name} (it has: {', '.join(known)})")
        return {
            name: self.wanted(known[name].type, own, f"{where}.{name}", numbers=numbers) for name, own in value.items()
        }

    def _wanted_elements(self, number: int, value: Any, where: str, *, numbers: bool) -> Any:  # noqa: ANN401
        size, spelled = self.types.size(number), self.types.spelled(number)
        if self.is_text(number):
            if not isinstance(value, str) or len(value.encode()) > size:
                raise ValueMismatch(f"{where}: {shown(value)} is no {spelled}")
            return value
        array = self.types.array(self.types.plain(number)[1])
        if not isinstance(value, list | tuple) or len(value) != array.length:
            raise ValueMismatch(f"{where}: {shown(value)} is no {spelled}")
        return [self.wanted(array.element, own, f"{where}[{at}]", numbers=numbers) for at, own in enumerate(value)]

    def write(self, number: int, value: Any, where: str) -> bytes:  # noqa: ANN401 - a value of a table
        """Return a value's bytes, as a key of a map has them; members that are not declared are zeros.

        Raises ValueMismatch.
        """
        declared = self.wanted(number, value, where)
        size = self.types.size(number)
        _, btf_type = self.types.plain(number)
        if btf_type.kind in COMPOSITE and isinstance(value, dict):
            data = bytearray(size)
            for member in self.members(number):
                if member.name in value:
                    if member.bits:
                        raise ValueMismatch(f"{where}.{member.name}: a bitfield cannot be part of a key")
                    own = self.write(member.type, value[member.name], f"{where}.{member.name}")
                    data[member.offset // 8 : member.offset // 8 + len(own)] = own
            return bytes(data)
        if isinstance(declared, str) and self.is_text(number):
            return declared.encode().ljust(size, b"\0")
        if isinstance(value, str) and btf_type.kind not in ENUMS:
            return self._address(number, value, where)
        if isinstance(declared, list):
            element = self.types.array(btf_type).element
            return b"".join(self.write(element, own, f"{where}[{at}]") for at, own in enumerate(value))
        if isinstance(declared, str):
            declared = dict(self.types.enumerators(btf_type))[declared]
        return self._written_number(number, int(value if btf_type.kind not in ENUMS else declared), where)

    def _written_number(self, number: int, value: int, where: str) -> bytes:
        size = self.types.size(number)
        try:
            return int(value).to_bytes(size, self._order_of(number), signed=self._signed(number))
        except OverflowError:
            raise ValueMismatch(f"{where}: {value} does not fit {self.types.spelled(number)}") from None

    def _address(self, number: int, text: str, where: str) -> bytes:
        """Return the bytes of an IPv4, IPv6 or MAC address, which are in network order in every type."""
        size = self.types.size(number)
        data = bytes.fromhex(text.replace(":", "")) if _MAC.fullmatch(text) else b""
        if not data:
            try:
                data = ipaddress.ip_address(text).packed
            except ValueError:
                raise ValueMismatch(f"{where}: {shown(text)} is no {self.types.spelled(number)}") from None
        if len(data) != size:
            raise ValueMismatch(f"{where}: {text} has {len(data)} bytes, and {self.types.spelled(number)} {size}")
        return data


def holds(wanted: Any, value: Any) -> bool:  # noqa: ANN401 - values of C
    """Whether a value is as `Values.wanted` says: of a struct, the members that it has."""
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(
            name in value and holds(own, value[name]) for name, own in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(value, list) and len(wanted) == len(value) and all(map(holds, wanted, value))
    return bool(wanted == value)


def total(values: Sequence[Any]) -> Any:  # noqa: ANN401 - values of C
    """Return the sum of each number; what is no number has none, and is None."""
    first = values[0]
    if isinstance(first, dict):
        return {name: total([value[name] for value in values]) for name in first}
    if isinstance(first, list):
        return [total(column) for column in zip(*values, strict=True)]
    return sum(values) if all(isinstance(value, int | float) for value in values) else None


def difference(now: Any, before: Any) -> Any:  # noqa: ANN401 - values of C
    """Return by how much each number has grown; before it was there, each was 0."""
    if isinstance(now, dict):
        return {name: difference(own, before and before[name]) for name, own in now.items()}
    if isinstance(now, list):
        return [difference(own, before and before[at]) for at, own in enumerate(now)]
    return now - (before or 0) if isinstance(now, int | float) else None
