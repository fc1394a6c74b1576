"""What a worker has changed of its guest's memory: found, kept, and written into a process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.relay.saved import memory_files

PAGE = 4096
#: pages, each of one byte
MEMORIES = st.lists(st.sampled_from(b"\0\0ab"), min_size=40, max_size=40)
#: maps a file privately, says so, waits, and prints what it has then
MAPS = """
import mmap, sys
with open(sys.argv[1], "r+b") as file:
    memory = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
print("mapped", flush=True)
sys.stdin.read()
sys.stdout.flush()
sys.stdout.buffer.write(memory[:])
"""


def write(path: Path, pages: list[int]) -> bytes:
    """Write a sparse file: pages of zeros are holes."""
    with path.open("wb") as file:
        for number, byte in enumerate(pages):
            if byte:
                file.seek(number * PAGE)
                file.write(bytes([byte]) * PAGE)
        file.truncate(len(pages) * PAGE)
    return path.read_bytes()


def test_only_a_file_system_without_holes_may_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "fallocate"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for message in ("fallocate failed: Operation not supported", "keep size mode is unsupported"):
        tool.write_text(f"#!/bin/sh\necho 'fallocate: {message}' >&2\nexit 1\n")
        tool.chmod(0o755)
        memory_files.dig_holes(tmp_path / "ram")
    tool.write_text("#!/bin/sh\necho 'fallocate: fallocate failed: Input/output error' >&2\nexit 1\n")
    with pytest.raises(OSError, match="Input/output error"):
        memory_files.dig_holes(tmp_path / "ram")


def test_what_cannot_be_searched_for_holes_is_an_error() -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(OSError, match="Illegal seek"):
            list(memory_files.blocks(reading, 1))
    finally:
        os.close(reading)
        os.close(writing)


@given(before=MEMORIES, after=MEMORIES)
def test_the_changes_on_top_of_the_guests_memory_are_the_workers(before: list[int], after: list[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        patched = bytearray(write(folder / "base", before))
        wanted = write(folder / "ram", after)
        memory_files.keep_changes(folder / "base", folder / "ram", folder)
        pages = (folder / "pages").read_bytes()
        assert len(pages) == PAGE * sum(old != new for old, new in zip(before, after, strict=True))
        at = 0
        for start, length in memory_files._RUN.iter_unpack((folder / "places").read_bytes()):
            patched[start : start + length] = pages[at : at + length]
            at += length
        assert patched == wanted


def test_a_process_gets_worker_pages_and_the_file_keeps_its(tmp_path: Path) -> None:
    """A process that maps a worker's memory sees the worker's pages; the base file keeps the guest's."""
    guest = write(tmp_path / "base with a space", [*b"ab\0a", *bytes(60), *b"bb"])
    worker = write(tmp_path / "ram", [*b"acb\0", *bytes(60), *b"cb"])
    memory_files.keep_changes(tmp_path / "base with a space", tmp_path / "ram", tmp_path)
    command = [sys.executable, "-c", MAPS, str(tmp_path / "base with a space")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"mapped\n"
        memory_files.write_changes(tmp_path, process.pid, tmp_path / "base with a space")
        assert process.communicate(b"", timeout=60)[0] == worker
    assert (tmp_path / "base with a space").read_bytes() == guest


def test_a_process_that_has_not_mapped_the_file_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "base", [*b"a"])
    memory_files.keep_changes(tmp_path / "base", tmp_path / "base", tmp_path)
    with pytest.raises(FileNotFoundError, match="not mapped"):
        memory_files.write_changes(tmp_path, os.getpid(), tmp_path / "base")
