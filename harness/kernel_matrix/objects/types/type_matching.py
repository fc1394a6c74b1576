"""Whether a type of an object fits a type of a kernel: the rules of libbpf's src/relo_core.c. Pure.

There are three relations, from weak to strong: of the types of two fields, of two types that are looked for by their
names (``bpf_core_type_exists``), and the one of ``bpf_core_type_matches``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kernel_matrix.shared.bpf.btf import COMPOSITE, ENUMS, Btf, BtfError, Kind, Type, essential

#: how deep types may refer to each other
_DEPTH = 32


def same_kind(left: Type, right: Type) -> bool:
    """Whether two types are of one kind; an enum may be wider than another."""
    return left.kind is right.kind or {left.kind, right.kind} <= ENUMS


@dataclass(frozen=True, slots=True)
class Pair:
    """A type of an object and a type of a kernel."""

    local: Btf
    target: Btf

    def _plain(self, local: int, target: int) -> tuple[Type, Type]:
        return self.local.plain(local)[1], self.target.plain(target)[1]

    def fields_fit(self, local: int, target: int) -> bool:
        """Whether a field of one type can be read as one of the other."""
        left, right = self._plain(local, target)
        if left.kind in COMPOSITE and right.kind in COMPOSITE:
            return True
        if not same_kind(left, right):
            return False
        if left.kind in {Kind.FWD, *ENUMS}:
            names = essential(left.name), essential(right.name)
            return "" in names or names[0] == names[1]
        if left.kind is Kind.INT:
            return self._whole(left, right)
        if left.kind is Kind.ARRAY:
            return self.fields_fit(self.local.array(left).element, self.target.array(right).element)
        return left.kind in {Kind.PTR, Kind.FLOAT}

    def _whole(self, left: Type, right: Type) -> bool:
        """Whether both integers begin at their first bit: others are bitfields of an old form."""
        return not any(btf.integer(of) >> 16 & 0xFF for btf, of in ((self.local, left), (self.target, right)))

    def compatible(self, local: int, target: int, depth: int = _DEPTH) -> bool:
        """Whether a type exists for ``bpf_core_type_exists``; the caller has compared the names."""
        if depth <= 0:
            raise BtfError("types refer to each other too deeply")
        if depth == _DEPTH and not same_kind(self.local.type(local), self.target.type(target)):
            return False
        left, right = self._plain(local, target)
        if not same_kind(left, right):
            return False
        if left.kind is Kind.INT:
            return self._whole(left, right)
        if left.kind in {Kind.PTR, Kind.ARRAY, Kind.FUNC_PROTO}:
            pairs = self._parts(left, right)
            return pairs is not None and all(self.compatible(*pair, depth - 1) for pair in pairs)
        return left.kind in {Kind.VOID, Kind.FWD, *COMPOSITE, *ENUMS}

    def _parts(self, left: Type, right: Type) -> list[tuple[int, int]] | None:
        """Return the types that two pointers, arrays or functions are made of; None: they differ in number."""
        if left.kind is Kind.ARRAY:
            return [(self.local.array(left).element, self.target.array(right).element)]
        if left.kind is Kind.FUNC_PROTO:
            if left.count != right.count:
                return None
            parameters = zip(self.local.parameters(left), self.target.parameters(right), strict=True)
            return [*((one, other) for (_, one), (_, other) in parameters), (left.value, right.value)]
        return [(left.value, right.value)]

    def matches(self, local: int, target: int, *, pointed: bool = False, depth: int = _DEPTH) -> bool:
        """Whether a type matches for ``bpf_core_type_matches``: each member has one of its name that matches, too."""
        if depth <= 0:
            raise BtfError("types refer to each other too deeply")
        left, right = self._plain(local, target)
        if essential(left.name) != essential(right.name):
            return False
        if left.kind is Kind.FWD or (left.kind in COMPOSITE and pointed):
            return _declared(left, right, pointed=pointed)
        if left.kind in ENUMS:
            return right.kind in ENUMS and self._enums_match(left, right)
        return left.kind is right.kind and self._of_one_kind(left, right, pointed, depth)

    def _of_one_kind(self, left: Type, right: Type, pointed: bool, depth: int) -> bool:  # noqa: FBT001
        if left.kind in COMPOSITE:
            return left.count <= right.count and all(self._members_match(left, right, pointed, depth))
        if left.kind is Kind.INT:
            return left.value == right.value and self.local.signed(left) == self.target.signed(right)
        if left.kind is Kind.ARRAY and self.local.array(left).length != self.target.array(right).length:
            return False
        if left.kind in {Kind.PTR, Kind.ARRAY, Kind.FUNC_PROTO}:
            pairs, behind = self._parts(left, right), pointed or left.kind is Kind.PTR
            return pairs is not None and all(self.matches(*pair, pointed=behind, depth=depth - 1) for pair in pairs)
        return left.kind is Kind.VOID

    def _enums_match(self, left: Type, right: Type) -> bool:
        names = {essential(name) for name, _ in self.target.enumerators(right)}
        wanted = {essential(name) for name, _ in self.local.enumerators(left)}
        return left.value == right.value and left.count <= right.count and wanted <= names

    def _members_match(self, left: Type, right: Type, pointed: bool, depth: int) -> Iterator[bool]:  # noqa: FBT001
        targets = self.target.members(right)
        for member in self.local.members(left):
            named = (other for other in targets if essential(other.name) == essential(member.name))
            yield any(self.matches(member.type, other.type, pointed=pointed, depth=depth - 1) for other in named)


def _declared(left: Type, right: Type, *, pointed: bool) -> bool:
    """Whether two types match of which one may be only declared: a struct, or (by its flag) a union."""
    unions = [btf_type.flag if btf_type.kind is Kind.FWD else btf_type.kind is Kind.UNION for btf_type in (left, right)]
    if left.kind is Kind.FWD and not pointed:
        return right.kind is Kind.FWD and unions[0] == unions[1]
    return right.kind in {Kind.FWD, *COMPOSITE} and unions[0] == unions[1]
