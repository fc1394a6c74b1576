"""The kernel's log: which records are read, which of them warn, and which were lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.guest.system.upkeep.kernel_log import KernelLog, excerpt


def record(sequence: int, text: str = "line") -> str:
    """Return a record as /dev/kmsg has it, with a line of its dictionary."""
    return f"6,{sequence},1500000,-;{text}\n SUBSYSTEM=net\n"


@given(st.sets(st.integers(0, 300)), st.integers(0, 10))
def test_every_record_that_is_missing_is_counted(present: set[int], expected: int) -> None:
    numbers = sorted(number for number in present if number >= expected)
    extract = excerpt([record(number) for number in numbers], expected)
    assert extract.next == (numbers[-1] + 1 if numbers else expected)
    assert extract.lost == extract.next - expected - len(numbers)
    assert bool(extract.wrong) == bool(extract.lost)
    assert sum("[    1.500000] line" in line for line in extract.lines) == len(numbers)


def test_the_harnesss_own_marks_are_no_lines_of_the_kernel() -> None:
    extract = excerpt([record(0, "harness: start suites/x.py::test_x[6.1]"), record(1)], 0)
    assert extract.lines == ("[    1.500000] line",)


def test_a_failure_begins_with_its_first_warning() -> None:
    lines = ["before", "WARNING: CPU: 0", *["registers"] * 300, "BUG: later"]
    extract = excerpt([record(number, line) for number, line in enumerate(lines)], 0)
    assert extract.wrong == "the kernel warned"
    assert extract.why.splitlines()[0].endswith("WARNING: CPU: 0")
    assert len(extract.why.splitlines()) == 100
    assert len(extract.text.splitlines()) == len(lines)


def test_behind_a_skip_the_first_record_is_the_next() -> None:
    extract = excerpt([record(7), record(9)], None)
    assert (extract.lost, extract.next) == (1, 10)
    assert excerpt([], None).next is None


def test_a_child_skips_what_others_have_logged(tmp_path: Path) -> None:
    """A child before it has read on: what it read is not lost for the next one."""
    path = tmp_path / "kmsg"
    path.write_text(record(0))
    log = KernelLog(path)
    with path.open("a") as file:
        file.write(record(1))
    log.skip()
    assert os.read(log._reader, 100) == b""
    assert excerpt([record(5)], log._next).lost == 0


def test_what_is_no_record_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a record"):
        excerpt(["anything"], 0)


def test_reading_goes_on_behind_what_was_overwritten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The kernel answers EPIPE once, then with the first record that is left (printk.c, devkmsg_read())."""
    answers: Iterator[bytes | type[OSError]] = iter(
        [record(0).encode(), BrokenPipeError, record(5).encode(), BlockingIOError, BlockingIOError]
    )

    def read(_descriptor: int, _size: int) -> bytes:
        answer = next(answers)
        if isinstance(answer, bytes):
            return answer
        raise answer

    path = tmp_path / "kmsg"
    path.touch()
    log = KernelLog(path)
    monkeypatch.setattr(os, "read", read)
    assert log.new().wrong == "4 records of the kernel's log were overwritten before they were read"
    assert not log.new().wrong
