"""Maps that a kernel does not create: types, flags and sizes."""

from __future__ import annotations

import errno
import mmap
import os

import pytest

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.steps import MapSpec
from kernel_matrix.guest.pytest.marks import refused_without
from kernel_matrix.guest.pytest.refusal import Refused

_ARRAY = MapSpec("array", key=4, value=4, entries=1)
_HASH = MapSpec("hash", key=4, value=4, entries=1)

# linux/bpf.h
_BPF_F_NO_PREALLOC = 1 << 0
_BPF_F_NO_COMMON_LRU = 1 << 1
_BPF_F_MMAPABLE = 1 << 10
_NO_SUCH_FLAG = 1 << 31
_NO_SUCH_TYPE = 1000


def _create(spec: MapSpec, flags: int = 0) -> None:
    os.close(steps.create_map(spec, flags=flags))


def test_a_map_type_that_no_kernel_has(refused: Refused) -> None:
    """map_create(): beyond the table of types is EINVAL; 2 is an array."""
    with refused(errno.EINVAL, stage="map_create"):
        os.close(steps.create_map_of_type(_NO_SUCH_TYPE, _ARRAY))
    os.close(steps.create_map_of_type(2, _ARRAY))


@refused_without("ringbuf", errno.EINVAL, stage="map_create")
def test_a_ring_buffer() -> None:
    """EINVAL where map_create() does not know the type."""
    _create(MapSpec("ringbuf", key=0, value=0, entries=mmap.PAGESIZE))


@refused_without("bloom_filter", errno.EINVAL, stage="map_create")
def test_a_bloom_filter() -> None:
    """EINVAL where map_create() does not know the type."""
    _create(MapSpec("bloom_filter", key=0, value=4, entries=1))


@refused_without("arena", errno.EINVAL, stage="map_create")
def test_an_arena() -> None:
    """EINVAL where map_create() does not know the type; arena_map_alloc() wants no key, no value and the flag."""
    _create(MapSpec("arena", key=0, value=0, entries=1), _BPF_F_MMAPABLE)


@pytest.mark.parametrize(
    ("spec", "wrong", "right"),
    [
        # array_map_alloc_check(): ARRAY_CREATE_FLAG_MASK
        pytest.param(_ARRAY, _NO_SUCH_FLAG, 0, id="array, a flag that does not exist"),
        pytest.param(_ARRAY, _BPF_F_NO_PREALLOC, _BPF_F_MMAPABLE, id="array, a hash's flag"),
        # htab_map_alloc_check(): HTAB_CREATE_FLAG_MASK; NO_COMMON_LRU is for an LRU hash
        pytest.param(_HASH, _NO_SUCH_FLAG, 0, id="hash, a flag that does not exist"),
        pytest.param(_HASH, _BPF_F_NO_COMMON_LRU, _BPF_F_NO_PREALLOC, id="hash, an LRU hash's flag"),
        # trie_alloc(): always without preallocation
        pytest.param(
            MapSpec("lpm_trie", key=8, value=4, entries=1), 0, _BPF_F_NO_PREALLOC, id="lpm_trie without its flag"
        ),
    ],
)
def test_a_flag_that_the_type_does_not_take(refused: Refused, spec: MapSpec, wrong: int, right: int) -> None:
    """EINVAL, and with the right flag the same map is made."""
    with refused(errno.EINVAL, stage="map_create"):
        _create(spec, wrong)
    _create(spec, right)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        # array_map_alloc_check()
        pytest.param(MapSpec("array", key=8, value=4, entries=1), _ARRAY, id="array, a key of 8 bytes"),
        pytest.param(MapSpec("array", key=4, value=4, entries=0), _ARRAY, id="array without entries"),
        # htab_map_alloc_check()
        pytest.param(MapSpec("hash", key=4, value=0, entries=1), _HASH, id="hash, a value of no bytes"),
        # ringbuf_map_alloc(): whole pages, a power of two of them
        pytest.param(
            MapSpec("ringbuf", key=0, value=0, entries=3 * mmap.PAGESIZE),
            MapSpec("ringbuf", key=0, value=0, entries=4 * mmap.PAGESIZE),
            id="ringbuf of three pages",
        ),
    ],
)
def test_a_size_that_the_type_does_not_take(refused: Refused, wrong: MapSpec, right: MapSpec) -> None:
    """EINVAL, and the same with another size is made."""
    with refused(errno.EINVAL, stage="map_create"):
        _create(wrong)
    _create(right)


def test_a_value_that_is_larger_than_any_can_be(refused: Refused) -> None:
    """array_map_alloc_check(): E2BIG beyond INT_MAX bytes (before 5.19 beyond KMALLOC_MAX_SIZE)."""
    with refused(errno.E2BIG, stage="map_create"):
        _create(MapSpec("array", key=4, value=1 << 31, entries=1))
    _create(_ARRAY)
