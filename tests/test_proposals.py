"""What the table lacks for an object: as its file shows it, and as its cells say it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.config.objects import Object
from kernel_matrix.objects.needed import declarations
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.outcomes import proposals
from tests import core_source

SOURCE = """
#define SEC(name) __attribute__((section(name), used))
char LICENSE[] SEC("license") = "GPL";
struct inner { int (*type)[2]; int (*max_entries)[1]; int *key, *value; };
struct { int (*type)[1]; int *key, *value; } tasks SEC(".maps");
struct { int (*type)[1]; int (*max_entries)[8]; int *key, *value; } whole SEC(".maps");
struct { int (*type)[24]; int (*map_flags)[1]; int *key, *value; } own SEC(".maps");
struct { int (*type)[12]; int (*max_entries)[4]; int *key, *value; } outer SEC(".maps");
struct { int (*type)[12]; int (*max_entries)[4]; int *key; struct inner *values[]; } complete SEC(".maps");
struct { int (*type)[13]; int *key; } neither SEC(".maps");
struct { int (*type)[7]; int (*max_entries)[9]; int (*key_size)[4]; } stacks SEC(".maps");
struct { int (*type)[2]; int (*max_entries)[9]; int (*key_size)[4]; int (*value_size)[4]; } sized SEC(".maps");
struct { int (*type)[5]; int (*max_entries)[9]; int *key; } keys SEC(".maps");
struct { int (*type)[27]; int (*max_entries)[4096]; } ring SEC(".maps");
SEC("xdp") int plain(void *ctx) { return 2; }
SEC("tc_ingress") int flows(void *ctx) { return 0; }
SEC("of_nobody") int nobody(void *ctx) { return 0; }
SEC("?fentry") int typed(void *ctx) { return 0; }
SEC("fentry/do_it") int named(void *ctx) { return 0; }
SEC("lsm.s") int sleeping(void *ctx) { return 0; }
SEC("freplace/f") int replacing(void *ctx) { return 0; }
SEC("kprobe") int bare(void *ctx) { return 0; }
SEC("kprobe/do_it") int probe(void *ctx) { return 0; }
SEC("tracepoint/") int slash(void *ctx) { return 0; }
SEC("uprobe") int made_here(void *ctx) { return 0; }
"""


def test_what_a_file_lacks_is_proposed_and_nothing_else(tmp_path: Path) -> None:
    """As libbpf takes sections and maps: targets that the engine makes are no question."""
    core_source.compiled(tmp_path, "x.bpf", SOURCE)
    data = (tmp_path / "x.bpf.o").read_bytes()
    assert proposals.tables(declarations.proposed(data, "build/x.bpf.o")) == [
        '[object."x.bpf.o"]',
        'inner-maps.neither = "MAP"',
        'inner-maps.outer = "MAP"',
        "max-entries.neither = 1024  # as its loader does",
        "max-entries.tasks = 1024  # as its loader does",
        'replaces.replacing = "OBJECT:PROGRAM"',
        'sections.flows = "SECTION"  # such as "tc"',
        'sections.nobody = "SECTION"  # such as "tc"',
        'targets.bare = "FUNCTION"',
        'targets.slash = "CATEGORY:NAME"',
        'targets.sleeping = "FUNCTION"',
        'targets.typed = "FUNCTION"',
        "value-sizes.keys = 8  # as its loader does",
        "value-sizes.stacks = 1016  # 127 frames",
    ]


def test_a_file_that_is_no_object_is_refused_in_a_line() -> None:
    with pytest.raises(ManifestError, match=r"^x\.o: not an object file that can be read: "):
        list(declarations.proposed(b"\x7fELF", "x.o"))


def test_texts_of_cells_become_one_table_for_each_object() -> None:
    """The same line once, lists joined, other lines of a text left out."""
    lines = [
        proposals.setting("b.o", "targets", "on", '"f"'),
        proposals.listing("a.o", "device-bound", "one"),
        proposals.listing("a.o", "device-bound", "two"),
        proposals.listing("a.o", "device-bound", "one"),
        proposals.setting("b.o", "targets", "on", '"f"'),
    ]
    texts = [f"{proposals.text('why', line)}\nmore" for line in lines]
    assert proposals.tables(proposals.of_texts(["nothing of it", *texts]), "tool.kernel-matrix") == [
        '[tool.kernel-matrix.object."a.o"]',
        'device-bound = ["one", "two"]',
        "",
        '[tool.kernel-matrix.object."b.o"]',
        'targets.on = "f"',
    ]
    assert proposals.tables([]) == []


def test_what_no_guest_has_is_proposed_as_not_expected() -> None:
    lines = [proposals.optional("*/a.o::on::*"), proposals.setting("b.o", "targets", "on", '"f"')]
    for above in ("", "tool.kernel-matrix"):
        read = tomllib.loads("\n".join(proposals.tables([*lines, *lines], above)))
        own = read["tool"]["kernel-matrix"] if above else read
        assert own["expect"] == [{"cells": "*/a.o::on::*", "optional": True}]
        assert own["object"] == {"b.o": {"targets": {"on": "f"}}}


KEYS = sorted(name.replace("_", "-") for name in Object.__struct_fields__)


@given(
    st.lists(
        st.tuples(
            st.from_regex(re.compile(r"[a-z0-9._*-]{1,12}", re.ASCII), fullmatch=True),
            st.sampled_from(KEYS),
            st.from_regex(re.compile(r"[A-Za-z0-9_.$<>-]{1,12}", re.ASCII), fullmatch=True),
            st.sampled_from(['"f"', "1024  # as its loader does"]),
        )
    )
)
def test_the_tables_are_toml_that_says_what_the_lines_say(rows: list[tuple[str, str, str, str]]) -> None:
    lines = [proposals.setting(*row) for row in rows]
    read = tomllib.loads("\n".join(proposals.tables(proposals.of_texts(proposals.text("why", one) for one in lines))))
    wanted: dict[str, dict[str, dict[str, object]]] = {}
    for name, key, of, value in rows:
        wanted.setdefault(name, {}).setdefault(key, {}).setdefault(of, json.loads(value.partition("  #")[0]))
    assert read.get("object", {}) == wanted
