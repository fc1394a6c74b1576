"""Rules about maps that are refused: unknown types and flags, sizes, what a type demands of its description. Pure."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from kernel_matrix.diagnose.situation import (
    ENOTSUPP,
    Cause,
    Diagnosis,
    MapFacts,
    Situation,
    advise,
)

#: mm/percpu.c, PCPU_MIN_UNIT_SIZE: the largest piece of per-CPU memory
PERCPU_BYTES = 32 << 10
#: linux/filter.h, MAX_BPF_STACK: a key that is longer does not fit a program's stack
_KEY_BYTES = 512
#: linux/bpf.h, enum bpf_map_type
_TYPES = (
    "unspec", "hash", "array", "prog_array", "perf_event_array", "percpu_hash", "percpu_array", "stack_trace",
    "cgroup_array", "lru_hash", "lru_percpu_hash", "lpm_trie", "array_of_maps", "hash_of_maps", "devmap", "sockmap",
    "cpumap", "xskmap", "sockhash", "cgroup_storage", "reuseport_sockarray", "percpu_cgroup_storage", "queue", "stack",
    "sk_storage", "devmap_hash", "struct_ops", "ringbuf", "inode_storage", "task_storage", "bloom_filter",
    "user_ringbuf", "cgrp_storage", "arena", "insn_array",
)  # fmt: skip
#: linux/bpf.h, flags of BPF_MAP_CREATE by their bits
FLAGS = tuple(
    f"BPF_F_{name}"
    for name in (
        "NO_PREALLOC", "NO_COMMON_LRU", "NUMA_NODE", "RDONLY", "WRONLY", "STACK_BUILD_ID", "ZERO_SEED", "RDONLY_PROG",
        "WRONLY_PROG", "CLONE", "MMAPABLE", "PRESERVE_ELEMS", "INNER_MAP", "LINK", "PATH_FD", "VTYPE_BTF_OBJ_FD",
        "TOKEN_FD", "SEGV_ON_FAULT", "NO_USER_CONV", "RB_OVERWRITE",
    )
)  # fmt: skip
_NO_PREALLOC, _NO_COMMON_LRU, _STACK_BUILD_ID, _MMAPABLE, _PRESERVE, _INNER = 1, 2, 1 << 5, 1 << 10, 1 << 11, 1 << 12

_LRU = frozenset({"lru_hash", "lru_percpu_hash"})
_STORAGES = frozenset({"sk_storage", "inode_storage", "task_storage", "cgrp_storage"})
_CGROUP_STORAGES = frozenset({"cgroup_storage", "percpu_cgroup_storage"})
_KEYLESS = frozenset({"queue", "stack", "bloom_filter", "ringbuf", "user_ringbuf", "arena"})
_VALUELESS = frozenset({"ringbuf", "user_ringbuf", "arena"})
_KEY_OF_FOUR = frozenset({
    "array", "percpu_array", "prog_array", "perf_event_array", "cgroup_array", "array_of_maps", "devmap", "cpumap",
    "xskmap", "sockmap", "reuseport_sockarray", "stack_trace",
}) | _STORAGES  # fmt: skip
#: maps whose values are the object's own
OF_ANY_VALUE = frozenset({
    "hash", "array", "percpu_hash", "percpu_array", "lru_hash", "lru_percpu_hash", "lpm_trie", "queue", "stack",
    "bloom_filter", "stack_trace",
}) | _STORAGES  # fmt: skip
_OF_FDS = frozenset({"prog_array", "perf_event_array", "cgroup_array", "array_of_maps", "hash_of_maps"})


def type_name(number: int) -> str:
    """Return libbpf's name of a type of maps; the number itself of one that is not known."""
    return _TYPES[number] if number < len(_TYPES) else str(number)


def flags(bits: int) -> list[str]:
    """Return the names of the flags of a map."""
    return [name for bit, name in enumerate(FLAGS) if bits >> bit & 1]


#: what the types' alloc_check() demand on every kernel since 5.10, and does not hold -> in words, and the function
_DEMANDS: tuple[tuple[Callable[[MapFacts], bool], str], ...] = (
    # queue_stack_map_alloc_check(), bloom_map_alloc(), ringbuf_map_alloc(), arena_map_alloc()
    (lambda m: m.type in _KEYLESS and m.key != 0, "has no key: its key_size is 0"),
    (lambda m: m.type in _VALUELESS and m.value != 0, "has no values: its value_size is 0"),
    # array_map_alloc_check(), dev_map_init_map(), bpf_local_storage_map_alloc_check(), ...
    (lambda m: m.type in _KEY_OF_FOUR and m.key != 4, "has keys of 4 bytes"),
    # fd_array_map_alloc_check(), fd_htab_map_alloc_check(): file descriptors
    (lambda m: m.type in _OF_FDS and m.value != 4, "has values of 4 bytes"),
    # trie_alloc(), bpf_local_storage_map_alloc_check()
    (
        lambda m: m.type in {"lpm_trie", *_STORAGES} and not m.flags & _NO_PREALLOC,
        "is made with the flag BPF_F_NO_PREALLOC only",
    ),
    # LPM_KEY_SIZE_MIN and LPM_KEY_SIZE_MAX: the length of the prefix, and 1 to 256 bytes of data
    (lambda m: m.type == "lpm_trie" and not 5 <= m.key <= 260, "has keys of 5 to 260 bytes"),
    # htab_map_alloc_check()
    (
        lambda m: m.type in _LRU and bool(m.flags & _NO_PREALLOC),
        "is never made with the flag BPF_F_NO_PREALLOC: its elements are its memory",
    ),
    (lambda m: m.type not in _LRU and bool(m.flags & _NO_COMMON_LRU), "has no list that BPF_F_NO_COMMON_LRU is about"),
    # only array_map_alloc_check(), arena_map_alloc() and, of a struct_ops, libbpf take this flag
    (
        lambda m: m.type not in {"array", "arena", "struct_ops"} and bool(m.flags & _MMAPABLE),
        "cannot be mapped into memory (BPF_F_MMAPABLE): arrays can",
    ),
    (lambda m: m.type == "arena" and not m.flags & _MMAPABLE, "is made with the flag BPF_F_MMAPABLE only"),
    (lambda m: m.type != "perf_event_array" and bool(m.flags & _PRESERVE), "does not take BPF_F_PRESERVE_ELEMS"),
    (lambda m: m.type != "array" and bool(m.flags & _INNER), "does not take BPF_F_INNER_MAP: arrays do"),
    # stack_map_alloc(): addresses, or with a build id struct bpf_stack_build_id of 32 bytes
    (
        lambda m: m.type == "stack_trace" and bool(m.value % (32 if m.flags & _STACK_BUILD_ID else 8)),
        "has values that are whole addresses",
    ),
    # bpf_local_storage_map_alloc_check(), cgroup_storage_map_alloc()
    (lambda m: m.type in _STORAGES | _CGROUP_STORAGES and m.entries != 0, "has no max_entries"),
    # ringbuf_map_alloc(): libbpf rounds up what is not
    (
        lambda m: m.type in {"ringbuf", "user_ringbuf"} and bool(m.entries & (m.entries - 1) or m.entries % 4096),
        "has a size (max_entries) that is a power of two and of whole pages",
    ),
)


def rule(at: Situation) -> Diagnosis | None:
    """Explain a map that was refused."""
    if at.stage != "map_create" or at.map is None:
        return None
    refused = at.map
    if f"BPF_MAP_TYPE_{refused.type.upper()}" in at.absent and at.errno in {errno.EINVAL, errno.E2BIG}:
        return advise(
            Cause.NOT_SUPPORTED,
            f"this kernel does not make a map of type {refused.type} ({refused.name}){_only_users(refused)}",
            _without(refused),
        )
    if at.errno in {errno.E2BIG, errno.ENOMEM}:
        return _large(refused, at.errno)
    if at.errno not in {errno.EINVAL, errno.EOPNOTSUPP, ENOTSUPP}:
        return None
    return _described_wrongly(at, refused)


def _described_wrongly(at: Situation, refused: MapFacts) -> Diagnosis:
    unknown = [name for name in flags(refused.flags) if name in at.absent]
    if unknown:
        return advise(
            Cause.NOT_SUPPORTED,
            f"this kernel does not know the flag {_joined(unknown)} of map {refused.name}{_only_users(refused)}",
            f"make it without the flag there, or {_without(refused)}",
        )
    for violated, demand in _DEMANDS:
        if violated(refused):
            return advise(
                Cause.MAP,
                f"a map of type {refused.type} {demand}, and {refused.name} is {_sizes(refused)}",
                "declare it so",
            )
    if not refused.entries and refused.type not in _STORAGES | _CGROUP_STORAGES:
        return advise(
            Cause.UNDECLARED,
            f"map {refused.name} ({refused.type}) has no max_entries: its loader sets it",
            "declare max-entries of the map in the table",
        )
    if not refused.value and refused.type in OF_ANY_VALUE:
        return advise(
            Cause.UNDECLARED,
            f"map {refused.name} ({refused.type}) has no size of its values: its loader sets it",
            "declare value-sizes of the map in the table",
        )
    return advise(
        Cause.UNKNOWN,
        f"the kernel knows the type of map {refused.name} and refuses its sizes or flags: {_sizes(refused)}",
        "compare them with what map_alloc_check() of that type demands on this kernel",
    )


def _large(refused: MapFacts, number: int) -> Diagnosis:
    value = (refused.value + 7) // 8 * 8
    if refused.type.startswith(("percpu", "lru_percpu")) and value > PERCPU_BYTES:
        return advise(
            Cause.MAP_TOO_LARGE,
            f"the value of per-CPU map {refused.name} is {refused.value} bytes, and a kernel takes {PERCPU_BYTES}"
            " (PCPU_MIN_UNIT_SIZE)",
            "split the value, or use a plain array indexed by the processor",
        )
    if number == errno.E2BIG and refused.key > _KEY_BYTES:
        return advise(
            Cause.MAP_TOO_LARGE,
            f"the key of map {refused.name} is {refused.key} bytes, and a kernel takes {_KEY_BYTES} (MAX_BPF_STACK)",
            "use a shorter key, such as a hash of it",
        )
    reason = "has no memory for" if number == errno.ENOMEM else "makes no"
    return advise(
        Cause.MAP_TOO_LARGE,
        f"the kernel {reason} map {refused.name}: {_sizes(refused)}",
        "use fewer or smaller entries, or BPF_F_NO_PREALLOC for a hash",
    )


def _sizes(refused: MapFacts) -> str:
    named = f", flags {' '.join(flags(refused.flags)) or hex(refused.flags)}" if refused.flags else ""
    return f"{refused.type}, {refused.entries} entries, key {refused.key} bytes, value {refused.value} bytes{named}"


def _only_users(refused: MapFacts) -> str:
    """Return who uses the map, where not every program does: libbpf makes it for all of them."""
    if not refused.users or len(refused.users) == refused.programs:
        return ""
    return f"; only {_joined(refused.users)} use{'s' if len(refused.users) == 1 else ''} it"


def _without(refused: MapFacts) -> str:
    if not refused.users:
        return f"leave the map out there: bpf_map__set_autocreate({refused.name}, false)"
    return (
        f"leave it out there with what uses it: bpf_map__set_autocreate({refused.name}, false), and"
        f" bpf_program__set_autoload(..., false) for {_joined(refused.users)}"
    )


def _joined(names: Sequence[str]) -> str:
    return ", ".join(names)


def pinned(at: Situation) -> Diagnosis | None:
    """Explain a map that is pinned already, as another one."""
    if at.stage == "pin" and at.map is not None and "mismatch" in at.log:
        return advise(
            Cause.PIN,
            f"a map is pinned as {at.map.name} already, and is made otherwise: {_sizes(at.map)}",
            "remove the stale pin, or give the map another name",
        )
    return None
