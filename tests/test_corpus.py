"""The corpus: objects cut out of files, and the lock of their packages."""

from __future__ import annotations

import struct
from pathlib import Path

import corpus
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.shared.errors import ImageError
from tests.projects import ROOT


def an_object(content: bytes, *, machine: int = 247, kind: int = 1, nobits: int = 0) -> bytes:
    """Return an ELF file: its header, one section of that content, a table of two sections, and nothing behind it."""
    table = 64 + len(content)
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, 0, 0, table, 0, 64, 0, 0, 64, 2, 0)
    )
    section = struct.pack("<IIQQQQIIQQ", 0, 1, 0, 0, 64, len(content), 0, 0, 1, 0)
    # .bss: its size is no part of the file
    bss = struct.pack("<IIQQQQIIQQ", 0, 8, 0, 0, 64, nobits, 0, 0, 1, 0)
    return header + content + section + bss


@given(st.lists(st.binary(max_size=40), max_size=3), st.binary(max_size=40), st.integers(0, 1 << 40))
def test_each_object_is_cut_out_as_it_was(contents: list[bytes], between: bytes, nobits: int) -> None:
    objects = [an_object(content, nobits=nobits) for content in contents]
    assert list(corpus.cut_out(between + between.join(objects) + between)) == objects


@pytest.mark.parametrize(
    "other", [an_object(b"x", machine=62), an_object(b"x", kind=2), an_object(b"x" * 9)[:-1], an_object(b"")[:70]]
)
def test_what_is_no_whole_object_for_bpf_is_left(other: bytes) -> None:
    assert list(corpus.cut_out(other)) == []


def test_objects_are_named_after_their_file() -> None:
    first, second = an_object(b"1"), an_object(b"2")
    assert list(corpus.named("tool.bpf.o", first)) == [("tool.bpf.o", first)]
    program = an_object(b"", machine=62) + first + second + first
    assert list(corpus.named("tool", program)) == [("tool.bpf.o", first), ("tool.1.bpf.o", second)]
    assert list(corpus.named("script", b"#!/bin/sh\n" + first)) == []


def test_the_lock_is_read_whole_or_not(tmp_path: Path) -> None:
    assert all(row.sha256 and row.size for row in corpus.read(ROOT / "tests" / "corpus" / "packages.toml").package)
    broken = tmp_path / "packages.toml"
    with pytest.raises(ImageError, match=r"packages\.toml: .*No such file"):
        corpus.read(broken)
    broken.write_text('[[package]]\nname = "x"\n')
    with pytest.raises(ImageError, match=r"packages\.toml: .*`suite`"):
        corpus.read(broken)
