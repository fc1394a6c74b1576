"""What is read of an object file without libbpf: its programs, the maps that they use, what tables name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.objects import build
from kernel_matrix.shared.bpf import bpf_elf
from kernel_matrix.shared.bpf.bpf_elf import BpfFile

SOURCE = r"""
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

int first(struct __sk_buff *skb);
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 1); __uint(key_size, 4);
         __array(values, int(void *)); } table SEC(".maps") = { .values = { [0] = (void *)&first } };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64);
} direct SEC(".maps"), shared SEC(".maps"), unused SEC(".maps");

const volatile int bound = 5;
short pair[2] = { 1, 2 };

static __attribute__((noinline)) int helper(int n)
{
        __u32 zero = 0;

        return bpf_map_lookup_elem(&shared, &zero) ? n : 0;
}

SEC("tc") int first(struct __sk_buff *skb)
{
        __u32 zero = 0;

        return bpf_map_lookup_elem(&direct, &zero) ? bound : pair[0];
}
SEC("tc") int second(struct __sk_buff *skb) { bpf_tail_call(skb, &table, 0); return 0; }
SEC("?xdp") int third(struct xdp_md *ctx) { return helper(ctx->ingress_ifindex); }
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elf")
    (folder / "x.bpf.c").write_text(SOURCE)
    build.compile_source(folder / "x.bpf.c", folder / "x.bpf.o", (), root=folder)
    return folder / "x.bpf.o"


def test_programs_are_the_functions_in_named_sections(compiled: Path) -> None:
    """Not `helper`, which is a function of .text."""
    assert bpf_elf.read(compiled).programs == {"first": "tc", "second": "tc", "third": "?xdp"}


def test_maps_are_those_that_the_code_and_its_functions_name(compiled: Path) -> None:
    file = bpf_elf.read(compiled)
    assert {name: set(maps) for name, maps in file.uses.items()} == {
        "first": {"direct"},
        "second": {"table"},
        "third": {"shared"},
    }
    assert [file.users(name) for name in ("direct", "shared", "unused")] == [("first",), ("third",), ()]


def test_a_program_takes_along_what_its_table_names(compiled: Path) -> None:
    file = bpf_elf.read(compiled)
    assert file.tables == {"table": frozenset({"first"})}
    assert {name: set(file.companions(name)) for name in file.programs} == {
        "first": set(),
        "second": {"first"},
        "third": set(),
    }


def test_tables_of_taken_programs_count_as_well() -> None:
    """A table's program that uses another table brings that table's programs; cycles end."""
    uses = {"a": frozenset({"t"}), "b": frozenset({"u"}), "c": frozenset({"t"}), "d": frozenset[str]()}
    file = BpfFile(dict.fromkeys(uses, "tc"), uses, {"t": frozenset({"b"}), "u": frozenset({"c"})})
    assert file.companions("a") == {"b", "c"}
    assert file.companions("d") == frozenset()


def test_members_of_a_struct_belong_together() -> None:
    file = BpfFile({"a": "struct_ops/x", "b": "struct_ops/y"}, structs={"ops": frozenset({"a", "b"})})
    assert file.companions("a") == {"b"}


def test_variables_have_a_place_and_a_size(compiled: Path) -> None:
    variables = bpf_elf.read(compiled).variables
    assert variables["bound"] == (".rodata", 0, 4)
    assert variables["pair"] == (".data", 0, 4)


def test_what_is_no_object_has_no_programs(tmp_path: Path) -> None:
    (tmp_path / "x.o").write_bytes(b"text")
    assert bpf_elf.read(tmp_path / "x.o") == BpfFile()


@pytest.mark.parametrize("offset", [1 << 47, 1 << 63])
def test_headers_behind_the_file_are_none(compiled: Path, offset: int) -> None:
    """e_shoff, from far beyond the end to what no signed number has."""
    content = bytearray(compiled.read_bytes())
    content[0x28:0x30] = offset.to_bytes(8, "little")
    damaged = compiled.with_name("behind.o")
    damaged.write_bytes(content)
    assert bpf_elf.read(damaged) == BpfFile()


@given(st.data())
def test_a_damaged_object_raises_nothing(compiled: Path, data: st.DataObject) -> None:
    """Collection goes on: libbpf says what is wrong when the object is opened."""
    content = bytearray(compiled.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = compiled.with_name("damaged.o")
    damaged.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    assert isinstance(bpf_elf.read(damaged), BpfFile)
