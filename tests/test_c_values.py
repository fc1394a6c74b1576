"""Values of C: read, written and compared as the BTF of a compiled object describes them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.objects import build
from kernel_matrix.shared.bpf import object_types, values
from kernel_matrix.shared.bpf.btf import Kind
from kernel_matrix.shared.bpf.object_types import MapType, ObjectTypes, VariableType
from kernel_matrix.shared.bpf.scenario import shown
from kernel_matrix.shared.bpf.values import ValueMismatch

SOURCE = r"""
#include <linux/bpf.h>
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

enum state { IDLE = -1, BUSY = 3 };
struct inner { __u8 mac[6]; __u8 pair[2]; };
struct event {
        __u32 pid;
        __s16 delta;
        __be16 port;
        char comm[8];
        enum state state;
        unsigned int low : 3, high : 7;
        int below : 4;
        union { __u64 cookie; struct { __u32 first, second; }; };
        struct inner inner;
        __u8 address[16];
        __be32 peer;
        void *task;
        _Bool on;
};
struct key { __be32 address; __be16 port; __u16 zero; };

struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4);
         __type(key, struct key); __type(value, struct event); } table SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 4);
         __type(key, __u32); __type(value, __u64); } each SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __uint(key_size, 4); __uint(value_size, 8);
} sized SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); __type(value, struct key); } typed SEC(".maps");

int pad, total;
static volatile long kept = 7;
const volatile int bound = 5;

SEC("xdp") int here(struct xdp_md *ctx)
{
        __u32 zero = 0;

        total += bound + pad++;
        return kept && bpf_map_lookup_elem(&each, &zero) && bpf_map_lookup_elem(&sized, &zero);
}
"""

#: as the compiler lays struct event out: the bitfields are in one int, low bits first
EVENT = struct.pack(
    "<IhH8siIQ6s2s16s4s4xQB7x",
    7, -2, 0x5000, b"ab\0zzzz\0", 3, 5 | 100 << 3 | 0b1000 << 10, 0x200000001,
    bytes.fromhex("0a0b0c0d0e0f"), b"\1\2", bytes(range(16)), bytes((192, 0, 2, 1)), 9, 1,
)  # fmt: skip


@pytest.fixture(scope="module")
def types(tmp_path_factory: pytest.TempPathFactory) -> ObjectTypes:
    folder = tmp_path_factory.mktemp("values")
    (folder / "x.bpf.c").write_text(SOURCE)
    build.compile_source(folder / "x.bpf.c", folder / "x.bpf.o", (), root=folder)
    return object_types.read(folder / "x.bpf.o")


def event(types: ObjectTypes) -> int:
    return types.values.types.find("event", Kind.STRUCT)


def test_maps_and_variables_have_their_types(types: ObjectTypes) -> None:
    spelled = types.values.types.spelled
    assert {name: (own.kind, own.per_cpu) for name, own in types.maps.items()} == {
        "table": (1, False), "each": (6, True), "sized": (2, False), "ring": (27, False), "typed": (27, False),
    }  # fmt: skip
    assert [spelled(types.keyed("table").key), spelled(types.keyed("table").value)] == ["struct key", "struct event"]
    assert types.variable("total").section == ".bss"
    assert (types.variable("kept").section, types.variable("kept").size) == (".data", 8)
    # pad and total are two ints of .bss
    assert {types.variable("pad").offset, types.variable("total").offset} == {0, 4}
    assert isinstance(types.variable("total"), VariableType)
    assert isinstance(types.maps["ring"], MapType)


def test_a_struct_is_read_member_by_member(types: ObjectTypes) -> None:
    assert types.values.read(event(types), EVENT) == {
        "pid": 7, "delta": -2, "port": 80, "comm": "ab", "state": "BUSY", "low": 5, "high": 100, "below": -8,
        "cookie": 0x200000001, "first": 1, "second": 2,
        "inner": {"mac": [10, 11, 12, 13, 14, 15], "pair": [1, 2]},
        "address": list(range(16)), "peer": 0xC0000201, "task": 9, "on": 1,
    }  # fmt: skip


def test_an_unknown_enumerator_is_its_number(types: ObjectTypes) -> None:
    data = bytearray(EVENT)
    data[16:20] = (99).to_bytes(4, "little")
    assert types.values.read(event(types), bytes(data))["state"] == 99


def test_too_few_bytes_are_no_struct(types: ObjectTypes) -> None:
    with pytest.raises(ValueError, match=r"3 bytes, but struct event has \d+"):
        types.values.read(event(types), b"abc")


@pytest.mark.parametrize(
    "declared",
    [
        {"pid": 7, "port": 80},
        {"comm": "ab", "state": "BUSY", "on": True},
        {"state": 3, "below": -8},
        {"inner": {"mac": "0a:0b:0c:0d:0e:0f"}, "second": 2},
        {"inner": {"pair": [1, 2]}, "peer": "192.0.2.1"},
        {"address": "1:203:405:607:809:a0b:c0d:e0f"},
    ],
)
def test_what_a_table_declares_is_compared(types: ObjectTypes, declared: dict[str, Any]) -> None:
    value = types.values.read(event(types), EVENT)
    assert values.holds(types.values.wanted(event(types), declared, "x"), value)


@pytest.mark.parametrize(
    "declared",
    [
        {"port": 0x5000},
        {"pid": 8},
        {"comm": "abc"},
        {"state": "IDLE"},
        {"inner": {"pair": [2, 1]}},
        {"peer": "192.0.2.2"},
        {"peer": 0x010200C0},
        {"below": 7},
    ],
)
def test_what_is_otherwise_does_not_hold(types: ObjectTypes, declared: dict[str, Any]) -> None:
    value = types.values.read(event(types), EVENT)
    assert not values.holds(types.values.wanted(event(types), declared, "x"), value)


@pytest.mark.parametrize(
    ("declared", "line"),
    [
        ({"size": 1}, "x: struct event has no member size (it has: pid, delta,"),
        ({"pid": -1}, "x.pid: -1 does not fit"),
        ({"pid": "ab"}, 'x.pid: "ab" is no'),
        ({"pid": [1]}, "x.pid: [1] is no"),
        ({"comm": "123456789"}, 'x.comm: "123456789" is no char[8]'),
        ({"comm": 1}, "x.comm: 1 is no char[8]"),
        ({"state": "GONE"}, "x.state: enum state has no GONE (it has: IDLE, BUSY)"),
        ({"inner": 1}, "x.inner: 1 is no struct inner (its members: mac, pair)"),
        ({"inner": {"pair": [1]}}, "x.inner.pair: [1] is no"),
        ({"inner": {"pair": [1, 300]}}, "x.inner.pair[1]: 300 does not fit"),
        ({"peer": "::1"}, "x.peer: ::1 has 16 bytes, and __be32 4"),
    ],
)
def test_what_is_no_value_of_a_type_is_one_line(types: ObjectTypes, declared: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueMismatch) as error:
        types.values.wanted(event(types), declared, "x")
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_text_and_names_have_no_sums(types: ObjectTypes) -> None:
    for declared in ({"comm": "ab"}, {"state": "BUSY"}):
        with pytest.raises(ValueMismatch, match="has no sums and differences"):
            types.values.wanted(event(types), declared, "x", numbers=True)
    assert types.values.wanted(event(types), {"delta": 1 << 40}, "x", numbers=True) == {"delta": 1 << 40}


def test_a_key_is_written_in_its_byte_order(types: ObjectTypes) -> None:
    key = types.keyed("table").key
    assert types.values.write(key, {"address": "192.0.2.1", "port": 80}, "key") == bytes((192, 0, 2, 1, 0, 80, 0, 0))
    assert types.values.write(key, {"address": 0xC0000201}, "key") == bytes((192, 0, 2, 1, 0, 0, 0, 0))
    with pytest.raises(ValueMismatch, match="has no member host"):
        types.values.write(key, {"host": 1}, "key")
    with pytest.raises(ValueMismatch, match="70000 does not fit"):
        types.values.write(key, {"port": 70000}, "key")


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1))
def test_a_key_that_is_written_is_read_again(types: ObjectTypes, address: int, port: int) -> None:
    declared = {"address": address, "port": port, "zero": 0}
    key = types.keyed("table").key
    assert types.values.read(key, types.values.write(key, declared, "key")) == declared


@pytest.mark.parametrize(
    ("ask", "line"),
    [
        (lambda own: own.keyed("gone"), "the object has no map gone (it has: each, ring, sized, table, typed)"),
        (lambda own: own.keyed("ring"), "map ring has no values that can be read by key"),
        (lambda own: own.keyed("sized"), "map sized declares no types"),
        (lambda own: own.buffer("table"), "map table is no ring buffer and no perf buffer"),
        (lambda own: own.variable("bound"), "no variable bound in .data and .bss (it has: kept, pad, total)"),
        (lambda own: own.record("gone", "ring"), "struct gone *unused_gone __attribute__((unused));"),
    ],
)
def test_what_an_object_lacks_is_one_line(types: ObjectTypes, ask: Callable[[ObjectTypes], object], line: str) -> None:
    with pytest.raises(ValueMismatch) as error:
        ask(types)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_a_records_struct_is_named_or_the_maps(types: ObjectTypes) -> None:
    spelled = types.values.types.spelled
    assert spelled(types.record("event", "ring")) == "struct event"
    assert spelled(types.record("struct event", "ring")) == "struct event"
    assert spelled(types.record("", "typed")) == "struct key"
    assert types.record("", "ring") == 0


def test_a_file_without_btf_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.o").write_bytes(b"none")
    with pytest.raises(ValueMismatch, match=r"x\.o has no BTF: compile it with -g"):
        object_types.read(tmp_path / "x.o")


def test_values_of_processors_are_added_and_compared() -> None:
    each = [{"a": 1, "b": [2, 3], "c": "x"}, {"a": 10, "b": [20, 30], "c": "x"}]
    assert values.total(each) == {"a": 11, "b": [22, 33], "c": None}
    assert values.difference({"a": 11, "b": [22, 33]}, {"a": 1, "b": [2, 3]}) == {"a": 10, "b": [20, 30]}
    # an entry that was not there before
    assert values.difference({"a": 11, "b": [1]}, None) == {"a": 11, "b": [1]}
    assert values.difference(5, 2) == 3


def test_numbers_of_the_run_are_put_in() -> None:
    assert object_types.replaced({"pid": "$pid", "all": ["$pid", "x"]}, {"$pid": 7}) == {"pid": 7, "all": [7, "x"]}
    with pytest.raises(ValueMismatch, match=r"unknown \$uid \(known: \$pid\)"):
        object_types.replaced("$uid", {"$pid": 7})


def test_a_value_is_shown_as_a_table_has_it() -> None:
    assert shown({"a": 1, "b": ["x", True]}) == '{a = 1, b = ["x", true]}'
