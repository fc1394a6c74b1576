"""What only an object's own loader knows, as far as the file shows it: the lines of the table that declare it. Pure.

In a guest libbpf and the kernel decide (kernel_matrix.guest.bpf.foreign), and may want more.
"""

from __future__ import annotations

from collections.abc import Iterator

from kernel_matrix.objects import object_file, section_names
from kernel_matrix.shared.bpf.object_types import declared_number, map_definitions
from kernel_matrix.shared.outcomes import proposals

#: linux/bpf.h, enum bpf_map_type: PERF_EVENT_ARRAY, (PERCPU_)CGROUP_STORAGE, SK_STORAGE, STRUCT_OPS, INODE_STORAGE,
#: TASK_STORAGE, CGRP_STORAGE have no entries of their own
_WITHOUT_ENTRIES = frozenset({4, 19, 21, 24, 26, 28, 29, 32})
#: STACK_TRACE, and the others whose values are the object's own: HASH, ARRAY, PERCPU_HASH, PERCPU_ARRAY, LRU_HASH,
#: LRU_PERCPU_HASH, LPM_TRIE, QUEUE, STACK, SK_STORAGE, INODE_STORAGE, TASK_STORAGE, BLOOM_FILTER, CGRP_STORAGE
_STACKS = 7
_OF_ANY_VALUE = frozenset({_STACKS, 1, 2, 5, 6, 9, 10, 11, 22, 23, 24, 28, 29, 30, 32})
#: ARRAY_OF_MAPS, HASH_OF_MAPS
_MAPS_OF_MAPS = frozenset({12, 13})


def proposed(data: bytes, path: str) -> Iterator[str]:
    """Yield a line for each setting that the object at this path lacks; raises ManifestError for a damaged file."""
    file = object_file.read(data, path)
    name = path.rpartition("/")[2]
    for program in file.programs:
        yield from _of_program(name, program.name, program.section.lstrip("?"))
    if file.btf is None:
        return
    for own, parts in map_definitions(file.btf):
        kind, entries = (declared_number(file.btf, parts, key) for key in ("type", "max_entries"))
        if kind in _MAPS_OF_MAPS and "values" not in parts:
            yield proposals.setting(name, "inner-maps", own, '"MAP"')
        if kind not in _WITHOUT_ENTRIES and not entries:
            yield proposals.setting(name, "max-entries", own, proposals.ENTRIES)
        if kind in _OF_ANY_VALUE and not parts.keys() & {"value", "value_size"}:
            yield proposals.setting(name, "value-sizes", own, proposals.value_size(stacks=kind == _STACKS))


def _of_program(name: str, program: str, section: str) -> Iterator[str]:
    kind, _, target = section.partition("/")
    if not section_names.parse(section).type:
        yield proposals.setting(name, "sections", program, proposals.section())
    elif kind == "freplace":
        yield proposals.setting(name, "replaces", program, '"OBJECT:PROGRAM"')
    elif kind.partition(".")[0] in proposals.NAMING and not target:
        yield proposals.setting(name, "targets", program, '"FUNCTION"')
    elif not target and (example := proposals.CHOSEN.get(kind)):
        yield proposals.setting(name, "targets", program, f'"{example}"')
