"""Bars show what the result set says."""

from __future__ import annotations

import pytest

from kernel_matrix.report import pictures
from kernel_matrix.results.document import Column
from kernel_matrix.shared.bpf.costs import Cost
from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from tests import result_sets


def test_a_program_is_a_picture_with_one_bar_per_kernel() -> None:
    """The picture has a scale of its own."""
    columns = [
        Column("5.10", "", "", "", {"big": Cost(1000, 10, 9, 8, 7, 6, 1.0), "small": Cost(50, 1, 1, 0, 7, 6, 1.0)}),
        Column("6.1", "", "", "", {"big": Cost(500, 10, 9, 8, 7, 6, 1.0)}),
    ]
    big, small = pictures.costs(result_sets.document([], columns=columns))
    assert (big.title, big.summary) == ("big", "500 to 1,000 instructions")
    assert [(bar.label, bar.length, bar.figure) for bar in big.bars] == [("5.10", 1.0, "1,000"), ("6.1", 0.5, "500")]
    assert (small.summary, [bar.length for bar in small.bars]) == ("50 instructions", [1.0])
    assert not pictures.costs(result_sets.document([Cell("6.1", "t", Outcome.PASS)]))


def test_a_dearer_program_comes_first_with_a_marked_bar() -> None:
    """A program that costs more than its baseline comes first, and its bar is marked."""
    first, *others = pictures.costs(result_sets.full())
    assert [bar.label for bar in first.bars if bar.marked] == ["7.3"]
    assert first.title == "trace_accept_exit"
    assert not any(chart.marked for chart in others)


def test_a_slow_test_is_listed_once_with_its_slowest_kernel() -> None:
    cells = [Cell(kernel, f"a.py::t{n}", Outcome.PASS, "", n + extra) for n in range(20) for kernel, extra in
             (("5.10", 0.0), ("6.1", 0.5))]  # fmt: skip
    document = result_sets.document(cells)
    bars = pictures.slowest(document).bars
    assert [bar.figure for bar in bars[:2]] == ["20 s on 6.1", "18 s on 6.1"]
    assert (len(bars), len({bar.label for bar in bars})) == (10, 10)
    assert [bar.figure for bar in pictures.seconds(document).bars] == ["3 min 10 s", "3 min 20 s"]


def test_nothing_is_slow_where_nothing_took_time() -> None:
    document = result_sets.document([Cell("6.1", "t", Outcome.NOTRUN)])
    assert pictures.slowest(document).bars == ()
    assert [bar.length for bar in pictures.seconds(document).bars] == [0.0]


@pytest.mark.parametrize(
    ("seconds", "spoken"), [(0, "0.00 s"), (9.994, "9.99 s"), (59.4, "59 s"), (90, "1 min 30 s"), (7260, "2 h 1 min")]
)
def test_durations_are_read_by_people(seconds: float, spoken: str) -> None:
    assert pictures.duration_text(seconds) == spoken
