"""Estimate the memory that the kernel takes for an object's maps, so that guests have enough of it. Pure.

Maps are allocated whole when they are created, but for those with BPF_F_NO_PREALLOC, which may be filled later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kernel_matrix.objects.object_file import ObjectFile
from kernel_matrix.shared.bpf.btf import Btf, BtfError
from kernel_matrix.shared.bpf.object_table import ObjectSettings
from kernel_matrix.shared.bpf.object_types import declared_number, map_definitions
from kernel_matrix.shared.project import MEMORY_MIB

#: enum bpf_map_type
_HASHES = frozenset({1, 5, 9, 10, 13})
_PER_CPU = frozenset({5, 6, 10, 21})
_STACK_TRACE, _RING_BUFFER = 7, 27
#: bytes beside key and value: kernel/bpf/hashtab.c, struct htab_elem, and a bucket for each element
_OF_ELEMENT = 64 + 16
#: kernel/bpf/stackmap.c: struct stack_map_bucket, and the pointer to it
_OF_STACK = 32 + 8
#: of a guest (`kernel_matrix.vm.boot_spec`)
_CPUS = 2
#: how often an object's maps may be there at once: it is loaded again while the kernel still frees them
_TIMES = 3
#: of what every guest has, free for maps; the most that a guest gets, and in which steps
_FREE_MIB, _MOST_MIB, _STEP_MIB = 96, 2048, 128


def of_object(file: ObjectFile, settings: ObjectSettings) -> int:
    """Return bytes; of maps whose definition is not in the object's BTF, 0."""
    return sum(_of_map(*one) for one in _definitions(file.btf, settings)) if file.btf else 0


def of_guest(maps: int) -> int:
    """Return the MiB of a guest for an object whose maps take so many bytes; 0: what every guest has.

    So it is for maps that would take more than any guest gets, too: that they are refused is what a run is to show.
    """
    more = (_TIMES * maps >> 20) - _FREE_MIB
    if more <= 0 or MEMORY_MIB + more > _MOST_MIB:
        return 0
    return MEMORY_MIB + -(-more // _STEP_MIB) * _STEP_MIB


def _definitions(types: Btf, settings: ObjectSettings) -> Iterator[tuple[int, int, int, int]]:
    """Yield the number of the type, the entries and the bytes of key and value of each map in the object's BTF."""
    for name, parts in map_definitions(types):
        entries = settings.max_entries.get(name) or declared_number(types, parts, "max_entries")
        yield (
            declared_number(types, parts, "type"),
            _CPUS if isinstance(entries, str) else entries,
            _size(types, parts, "key"),
            settings.value_sizes.get(name) or _size(types, parts, "value"),
        )


def _of_map(kind: int, entries: int, key: int, value: int) -> int:
    each = _rounded(value) * (_CPUS if kind in _PER_CPU else 1)
    if kind == _RING_BUFFER:
        return entries
    if kind == _STACK_TRACE:
        return entries * (each + _OF_STACK)
    if kind in _HASHES:
        return entries * (each + _rounded(key) + _OF_ELEMENT)
    return entries * each


def _rounded(size: int) -> int:
    return (size + 7) & ~7


def _size(types: Btf, parts: Mapping[str, int], name: str) -> int:
    """Return the bytes that ``__type(name, type)`` or ``__uint(name_size, number)`` declares; 0 for neither."""
    if name not in parts:
        return declared_number(types, parts, f"{name}_size")
    _, pointer = types.plain(parts[name])
    try:
        return types.size(pointer.value)
    except BtfError:
        return 0
