"""Resolve an object's CO-RE relocations against a kernel's BTF, as libbpf does when it loads the object. Pure.

The rules, and what is an error, are those of bpf_core_calc_relo_insn() in libbpf's src/relo_core.c. Where no type fits,
libbpf makes the instruction one that the verifier refuses, unless it is never reached; relocations that ask whether
something exists become 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from kernel_matrix.objects.types.btf_ext import Relocation, RelocationKind
from kernel_matrix.objects.types.type_matching import Pair, same_kind
from kernel_matrix.shared.bpf.btf import COMPOSITE, ENUMS, Array, Btf, BtfError, Kind, Type, essential

#: most levels of one access (BPF_CORE_SPEC_MAX_LEN)
_LEVELS = 64
#: the largest signed number of 32 bits
_MOST = (1 << 31) - 1
#: relocations that are answered whether a type is there or not
_ABSENT_IS_ZERO = frozenset(RelocationKind) - {
    RelocationKind.FIELD_BYTE_OFFSET, RelocationKind.FIELD_BYTE_SIZE, RelocationKind.FIELD_SIGNED,
    RelocationKind.FIELD_LSHIFT_U64, RelocationKind.FIELD_RSHIFT_U64, RelocationKind.ENUMVAL_VALUE,
}  # fmt: skip


class RefusedError(ValueError):
    """Libbpf refuses the object for this relocation; the text is one line."""


@dataclass(frozen=True, slots=True)
class _Step:
    """A named member, or an element of an array (without a name), of a type that is no typedef."""

    type: int
    index: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Access:
    """A way from a type to a field, or to an enumerator."""

    root: int
    steps: tuple[_Step, ...] = ()
    #: every index, those into anonymous members, too
    indices: tuple[int, ...] = ()
    #: bits from the start of the root
    offset: int = 0

    def then(self, step: _Step, *, raw: tuple[int, ...], offset: int) -> Access:
        """Return the access with one more step."""
        if len(self.indices) + len(raw) > _LEVELS:
            raise RefusedError("too many levels of structs")
        return replace(self, steps=(*self.steps, step), indices=(*self.indices, *raw), offset=self.offset + offset)

    @property
    def path(self) -> str:
        """The access in C: ``.a.b[3]``."""
        parts = [f".{step.name}" if step.name else f"[{step.index}]" for step in self.steps]
        return "".join(parts if parts[:1] != ["[0]"] else parts[1:])


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a relocation becomes on a kernel."""

    #: None: the instruction is replaced by one that the verifier refuses if it is ever reached
    value: int | None
    #: of a field's offset: its bytes
    size: int | None = None
    #: the field's place in bits, more exact than the value where it is a bitfield
    bit_offset: int | None = None
    #: the kernel's type and way to it; empty when there is none
    target: str = ""


@dataclass(slots=True)
class Resolver:
    """An object and a kernel; candidates that fail for one relocation are not tried for the next one of that type."""

    local: Btf
    target: Btf
    _candidates: dict[int, list[int]] = field(default_factory=dict)

    def resolve(self, relocation: Relocation) -> Resolution:
        """Return what a relocation becomes; raises RefusedError where libbpf refuses the object, BtfError."""
        if relocation.kind is RelocationKind.TYPE_ID_LOCAL:
            return Resolution(relocation.type)
        access = parse(self.local, relocation)
        if not self.local.type(relocation.type).name:
            raise RefusedError("a type without a name cannot be relocated")
        candidates = self._candidates_of(relocation.type)
        fitting: dict[int, tuple[Access, Resolution]] = {}
        for number in candidates:
            matched = self._match(relocation.kind, access, number)
            if matched is not None:
                fitting[number] = matched, self._value(relocation.kind, matched)
        if not fitting:
            return Resolution(0 if relocation.kind in _ABSENT_IS_ZERO else None)
        first, resolution = next(iter(fitting.values()))
        for other, value in fitting.values():
            if other.offset != first.offset or value.value != resolution.value:
                raise RefusedError("the kernel has several types of that name, which differ in it")
        self._candidates[relocation.type] = list(fitting)
        return resolution

    def named(self, relocation: Relocation) -> bool:
        """Whether the kernel has a type of that name and kind, whether it fits or not."""
        return bool(self._candidates_of(relocation.type))

    def loads_alike(self, relocation: Relocation, resolution: Resolution) -> bool:
        """Whether a load or store of the field can be made as wide as the kernel's field is.

        It cannot for signed integers, nor for what is neither a pointer nor an integer: libbpf then replaces the
        instruction.
        """
        if relocation.kind is not RelocationKind.FIELD_BYTE_OFFSET or resolution.size is None:
            return True
        access = parse(self.local, relocation)
        mine = field_value(self.local, relocation.kind, access)
        if mine.size in {None, resolution.size}:
            return True
        matched = next(
            btf_type for number in self._candidates_of(relocation.type)
            if (btf_type := self._match(relocation.kind, access, number)) is not None
        )  # fmt: skip
        kinds = [(btf, _field_type(btf, way)) for btf, way in ((self.local, access), (self.target, matched))]
        if all(btf_type.kind is Kind.PTR for _, btf_type in kinds):
            return True
        return all(btf_type.kind is Kind.INT and not btf.signed(btf_type) for btf, btf_type in kinds)

    def _candidates_of(self, number: int) -> list[int]:
        if number not in self._candidates:
            local = self.local.type(number)
            named = self.target.candidates(local.name)
            self._candidates[number] = [other for other in named if same_kind(local, self.target.type(other))]
        return self._candidates[number]

    # -- from the object's type to the kernel's

    def _match(self, kind: RelocationKind, access: Access, number: int) -> Access | None:
        """Return the access in a candidate; None: it does not fit."""
        pair = Pair(self.local, self.target)
        if kind.of_enumerator:
            return self._enumerator(access, number)
        if not kind.of_field:
            matches = pair.matches if kind is RelocationKind.TYPE_MATCHES else pair.compatible
            return Access(number) if matches(access.root, number) else None
        matched, current = Access(number), number
        for position, step in enumerate(access.steps):
            if step.name:
                deeper = self._member(step, current, pair)
                if deeper is None:
                    return None
                way, current, offset = deeper
                (inner,) = way.steps
                matched = matched.then(inner, raw=way.indices, offset=offset)
                continue
            current, btf_type = self.target.plain(current)
            if position:
                if btf_type.kind is not Kind.ARRAY:
                    return None
                array = self.target.array(btf_type)
                if step.index >= array.length and not _flexible(self.target, matched, array):
                    return None
                current, _ = self.target.plain(array.element)
            offset = step.index * _sized(self.target, current) * 8
            matched = matched.then(_Step(current, step.index), raw=(step.index,), offset=offset)
        return matched

    def _enumerator(self, access: Access, number: int) -> Access | None:
        number, btf_type = self.target.plain(number)
        if btf_type.kind not in ENUMS:
            return None
        wanted = essential(access.steps[0].name)
        for index, (name, _) in enumerate(self.target.enumerators(btf_type)):
            if essential(name) == wanted:
                return Access(number, (_Step(number, index, name),), (index,))
        return None

    def _member(self, step: _Step, number: int, pair: Pair) -> tuple[Access, int, int] | None:
        """Return the way to the member of that name in a struct and its anonymous parts, its type and bit offset."""
        number, btf_type = self.target.plain(number)
        if btf_type.kind not in COMPOSITE:
            return None
        local = self.local.members(self.local.type(step.type))[step.index]
        for index, member in enumerate(self.target.members(btf_type)):
            if not member.name:
                deeper = self._member(step, member.type, pair)
                if deeper is not None:
                    way, current, offset = deeper
                    inner = replace(way, indices=(index, *way.indices))
                    return inner, current, offset + member.offset
            elif member.name == local.name:
                # as libbpf: a member of that name and of another type ends the search
                if not pair.fields_fit(local.type, member.type):
                    return None
                return Access(number, (_Step(number, index, member.name),), (index,)), member.type, member.offset
        return None

    # -- from the kernel's type to a value

    def _value(self, kind: RelocationKind, access: Access) -> Resolution:
        """Return the value of a relocation whose target is known."""
        name = self.target.spelled(access.root)
        if kind.of_enumerator:
            _, btf_type = self.target.plain(access.root)
            named, value = self.target.enumerators(btf_type)[access.steps[0].index]
            if btf_type.kind is Kind.ENUM and value > _MOST:
                # as libbpf, which takes all of them for signed numbers
                value -= 1 << 32
            exists = kind is RelocationKind.ENUMVAL_EXISTS
            return Resolution(1 if exists else value, target=f"{name}::{named}")
        if not kind.of_field:
            values = {RelocationKind.TYPE_ID_TARGET: access.root, RelocationKind.TYPE_SIZE: -1}
            value = values.get(kind, 1)
            return Resolution(_sized(self.target, access.root) if value < 0 else value, target=name)
        target = name + access.path
        if kind is RelocationKind.FIELD_EXISTS:
            return Resolution(1, bit_offset=access.offset, target=target)
        return replace(field_value(self.target, kind, access), bit_offset=access.offset, target=target)


def _field_type(btf: Btf, access: Access) -> Type:
    """Return the type that an access ends at, without typedefs."""
    last = access.steps[-1]
    return btf.plain(btf.members(btf.type(last.type))[last.index].type if last.name else last.type)[1]


def _sized(btf: Btf, number: int) -> int:
    """Return a type's bytes; raises RefusedError where it has no size."""
    try:
        return btf.size(number)
    except BtfError as error:
        raise RefusedError(str(error)) from error


def _flexible(btf: Btf, access: Access, array: Array) -> bool:
    """Whether an array is the last member of its struct, and without a length."""
    last = access.steps[-1] if access.steps else _Step(0, 0)
    return array.length == 0 and bool(last.name) and last.index == btf.type(last.type).count - 1


def parse(btf: Btf, relocation: Relocation) -> Access:
    """Return the access that a relocation is about, in the object's own types; raises RefusedError."""
    if not (relocation.kind.of_field or relocation.kind.of_enumerator):
        return Access(relocation.type)
    try:
        indices = [int(part) for part in relocation.access.split(":")]
    except ValueError as error:
        raise RefusedError(f"{relocation.access!r} is no access") from error
    number, btf_type = btf.plain(relocation.type)
    if relocation.kind.of_enumerator:
        if btf_type.kind not in ENUMS or len(indices) > 1 or indices[0] >= btf_type.count:
            raise RefusedError(f"{relocation.access!r} is no enumerator of {btf.spelled(relocation.type)}")
        name, _ = btf.enumerators(btf_type)[indices[0]]
        return Access(relocation.type, (_Step(number, indices[0], name),), (indices[0],))
    first = _Step(number, indices[0])
    access = Access(relocation.type).then(first, raw=(indices[0],), offset=indices[0] * _sized(btf, number) * 8)
    for index in indices[1:]:
        access, number = _deeper(btf, access, number, index)
    return access


def _deeper(btf: Btf, access: Access, number: int, index: int) -> tuple[Access, int]:
    """Return the access one level deeper, and the type there."""
    number, btf_type = btf.plain(number)
    if btf_type.kind in COMPOSITE and index < btf_type.count:
        member = btf.members(btf_type)[index]
        if not member.name:
            return replace(access, indices=(*access.indices, index), offset=access.offset + member.offset), member.type
        return access.then(_Step(number, index, member.name), raw=(index,), offset=member.offset), member.type
    if btf_type.kind is Kind.ARRAY:
        array = btf.array(btf_type)
        element, _ = btf.plain(array.element)
        if index < array.length or _flexible(btf, access, array):
            offset = index * _sized(btf, element) * 8
            return access.then(_Step(element, index), raw=(index,), offset=offset), element
    raise RefusedError(f"{access.path}: {btf.spelled(number)} has no part {index}")


def field_value(btf: Btf, kind: RelocationKind, access: Access) -> Resolution:
    """Return the value of a field's relocation; raises RefusedError where none can be."""
    last = access.steps[-1]
    if not last.name:
        size = _sized(btf, last.type)
        if kind is RelocationKind.FIELD_BYTE_OFFSET:
            return Resolution(access.offset // 8, size)
        if kind is RelocationKind.FIELD_BYTE_SIZE:
            return Resolution(size)
        raise RefusedError("the element of an array has no bits to shift, nor a sign")
    member = btf.members(btf.type(last.type))[last.index]
    _, btf_type = btf.plain(member.type)
    if member.bits:
        start, size = _bitfield(access.offset, member.bits, btf_type)
    else:
        start, size = access.offset // 8, _sized(btf, member.type)
    bits = member.bits or size * 8
    before = access.offset - start * 8
    left = 64 - before - bits if btf.order == "<" else (8 - size) * 8 + before
    values = {
        RelocationKind.FIELD_BYTE_OFFSET: start,
        RelocationKind.FIELD_BYTE_SIZE: size,
        RelocationKind.FIELD_SIGNED: int(btf.signed(btf_type)),
        RelocationKind.FIELD_LSHIFT_U64: left,
        RelocationKind.FIELD_RSHIFT_U64: 64 - bits,
    }
    return Resolution(values[kind], size if kind is RelocationKind.FIELD_BYTE_OFFSET else None)


def _bitfield(offset: int, bits: int, of: Type) -> tuple[int, int]:
    """Return the byte and the bytes of the smallest load that has all of a bitfield."""
    size = of.value
    while True:
        start = offset // 8 // size * size
        if offset + bits - start * 8 <= size * 8:
            return start, size
        if size >= 8:
            raise RefusedError("the bitfield is in more than eight bytes")
        size *= 2
