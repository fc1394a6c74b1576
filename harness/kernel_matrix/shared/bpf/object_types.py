"""What an object's own BTF says of its maps, variables and structs, so that their bytes can be read. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel_matrix.shared.bpf import bpf_elf
from kernel_matrix.shared.bpf.btf import Btf, BtfError, Kind
from kernel_matrix.shared.bpf.values import ValueMismatch, Values

# enum bpf_map_type of linux/bpf.h
RING_BUFFER, PERF_BUFFER = 27, 4
#: hash, array, their LRU and per-CPU forms, and the trie of prefixes
KEYED = frozenset({1, 2, 5, 6, 9, 10, 11})
PER_CPU = frozenset({5, 6, 10})
#: sections of global variables that a program may change
_CHANGED = (".bss", ".data")


@dataclass(frozen=True, slots=True)
class MapType:
    """A map as the object declares it; the number of a type is 0 where it declares only a size."""

    name: str
    kind: int
    key: int
    value: int

    @property
    def per_cpu(self) -> bool:
        """Whether it has a value for each processor."""
        return self.kind in PER_CPU


@dataclass(frozen=True, slots=True)
class VariableType:
    """A global variable, and where its value is in the map of its section."""

    section: str
    type: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class ObjectTypes:
    """The maps, variables and structs of an object."""

    values: Values
    maps: Mapping[str, MapType]
    variables: Mapping[str, VariableType]

    def keyed(self, name: str) -> MapType:
        """Return a map that has keys and values; raises ValueMismatch."""
        own = self._map(name)
        if own.kind not in KEYED:
            raise ValueMismatch(f"map {name} has no values that can be read by key")
        if not own.key or not own.value:
            raise ValueMismatch(f"map {name} declares no types: write __type(key, ...) and __type(value, ...)")
        return own

    def buffer(self, name: str) -> MapType:
        """Return a ring buffer or perf buffer; raises ValueMismatch."""
        own = self._map(name)
        if own.kind not in {RING_BUFFER, PERF_BUFFER}:
            raise ValueMismatch(f"map {name} is no ring buffer and no perf buffer")
        return own

    def _map(self, name: str) -> MapType:
        if name not in self.maps:
            raise ValueMismatch(f"the object has no map {name} (it has: {', '.join(sorted(self.maps)) or 'none'})")
        return self.maps[name]

    def variable(self, name: str) -> VariableType:
        """Return a global variable that programs may change; raises ValueMismatch."""
        if name not in self.variables:
            listed = ", ".join(sorted(self.variables)) or "none"
            raise ValueMismatch(f"the object has no variable {name} in .data and .bss (it has: {listed})")
        return self.variables[name]

    def record(self, struct: str, buffer: str) -> int:
        """Return the type of a buffer's records: that struct, or what the map declares; 0: neither says.

        Raises ValueMismatch for a struct that the BTF lacks: clang writes only types that something global has.
        """
        if not struct:
            return self.buffer(buffer).value
        name = struct.removeprefix("struct ")
        number = self.values.types.find(name, Kind.STRUCT, Kind.UNION, Kind.TYPEDEF)
        if not number:
            line = f"struct {name} *unused_{name} __attribute__((unused));"
            raise ValueMismatch(f"the object's BTF has no struct {name}; this line of its source puts it there: {line}")
        return number


def read(path: Path) -> ObjectTypes:
    """Read an object file; raises ValueMismatch where it has no BTF."""
    data = bpf_elf.section(path, ".BTF")
    if not data:
        raise ValueMismatch(f"{path.name} has no BTF: compile it with -g")
    try:
        types = Btf(data)
        maps = {own.name: own for own in _maps(types)}
        return ObjectTypes(Values(types), maps, dict(_variables(path, types)))
    except BtfError as error:
        raise ValueMismatch(f"{path.name}: {error}") from error


def _maps(types: Btf) -> Iterator[MapType]:
    """Yield the maps that the section .maps declares (libbpf.c, parse_btf_map_def())."""
    for name, parts in map_definitions(types):
        if "type" in parts:
            yield MapType(
                name,
                declared_number(types, parts, "type"),
                _pointed(types, parts.get("key", 0)),
                _pointed(types, parts.get("value", 0)),
            )


def map_definitions(types: Btf, section: str = ".maps") -> Iterator[tuple[str, Mapping[str, int]]]:
    """Yield the maps that a section of the BTF defines, each with its parts and the numbers of their types."""
    for declared in types.declared(section):
        _, definition = types.plain(declared.value)
        yield declared.name, {member.name: member.type for member in types.members(definition)}


def declared_number(types: Btf, parts: Mapping[str, int], name: str) -> int:
    """Return the number that ``__uint(name, number)`` declares: the length of an array that is pointed at; 0: none."""
    if name not in parts:
        return 0
    _, btf_type = types.plain(_pointed(types, parts[name]))
    return types.array(btf_type).length if btf_type.kind is Kind.ARRAY else 0


def _pointed(types: Btf, number: int) -> int:
    return types.plain(number)[1].value if number else 0


def _variables(path: Path, types: Btf) -> Iterator[tuple[str, VariableType]]:
    """Yield the variables; where they are, only the symbols say: clang leaves that in the BTF to the loader."""
    for name, (section, offset, size) in bpf_elf.read(path).variables.items():
        if section.startswith(_CHANGED) and (number := types.find(name, Kind.VAR)):
            yield name, VariableType(section, types.type(number).value, offset, size)


def replaced(value: Any, names: Mapping[str, int]) -> Any:  # noqa: ANN401 - a value of a table
    """Return a declared value with ``$pid`` and the like replaced; raises ValueMismatch for an unknown one."""
    if isinstance(value, dict):
        return {name: replaced(own, names) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [replaced(own, names) for own in value]
    if isinstance(value, str) and value.startswith("$"):
        if value not in names:
            raise ValueMismatch(f"unknown {value} (known: {', '.join(names)})")
        return names[value]
    return value
