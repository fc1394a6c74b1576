"""How much memory guests have for the maps of objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_matrix.objects import build, object_file
from kernel_matrix.objects.needed import map_memory
from kernel_matrix.shared.bpf.object_table import ObjectSettings

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct key { __u64 a; __u32 b; };
#define MAP(name, kind, entries, ...) \\
    struct { __uint(type, kind); __uint(max_entries, entries); __VA_ARGS__; } name SEC(".maps")
MAP(hash, BPF_MAP_TYPE_HASH, 1000, __type(key, struct key); __type(value, __u32));
MAP(per_cpu, BPF_MAP_TYPE_PERCPU_ARRAY, 100, __uint(key_size, 4); __uint(value_size, 12));
MAP(stacks, BPF_MAP_TYPE_STACK_TRACE, 10, __uint(key_size, 4); __uint(value_size, 1016));
MAP(ring, BPF_MAP_TYPE_RINGBUF, 4096);
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, __u64); } later SEC(".maps");
SEC("socket") int f(void *ctx) { return 0; }
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> object_file.ObjectFile:
    folder: Path = tmp_path_factory.mktemp("maps")
    (folder / "x.bpf.c").write_text(SOURCE)
    build.compile_source(folder / "x.bpf.c", folder / "x.bpf.o", (), root=folder)
    return object_file.read((folder / "x.bpf.o").read_bytes(), "x")


@pytest.mark.parametrize(("later", "of_later"), [({}, 0), ({"later": 50}, 50 * 8), ({"later": "cpus"}, 2 * 8)])
def test_each_map_takes_what_its_type_does(
    file: object_file.ObjectFile, later: dict[str, int | str], of_later: int
) -> None:
    """A key of 16 bytes and a value of 4, which is rounded up, in an element of 64 with a bucket of 16."""
    of_hash = 1000 * (16 + 8 + 64 + 16)
    of_per_cpu = 100 * 2 * 16
    of_stacks = 10 * (1016 + 32 + 8)
    expected = of_hash + of_per_cpu + of_stacks + 4096 + of_later
    assert map_memory.of_object(file, ObjectSettings(max_entries=later)) == expected
    larger = ObjectSettings(max_entries=later, value_sizes={"stacks": 2032})
    assert map_memory.of_object(file, larger) == expected + 10 * 1016


@pytest.mark.parametrize(
    ("maps", "mib"),
    [
        (0, 0),
        (32 << 20, 0),
        # three times 33 MiB, of which 96 are free anyway
        (33 << 20, 640),
        (146 << 20, 896),
        # three times 544 MiB, less 96, and 512
        (544 << 20, 2048),
        (545 << 20, 0),
        (1 << 40, 0),
    ],
)
def test_a_guest_has_room_for_the_maps_of_three(maps: int, mib: int) -> None:
    assert map_memory.of_guest(maps) == mib
