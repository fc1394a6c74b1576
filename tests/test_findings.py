"""What is the same on some kernels is said once, and nothing is left out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.results.changes import Change, Kind
from kernel_matrix.results.findings import by_file, by_kernel, differences, findings, shared_name, unchanged
from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from tests import result_sets

kernels = st.sampled_from(["5.10", "6.1", "7.3"])
words = st.sampled_from(["", "a", "b\nE   c"])
cells = st.builds(Cell, kernels, st.sampled_from("xyz"), st.sampled_from(Outcome), detail=words)
changes = st.builds(Change, st.sampled_from(Kind), kernels, words, words, words, words, st.booleans())


@given(st.lists(cells))
def test_every_red_cell_is_in_one_finding(came: list[Cell]) -> None:
    red_cells = [cell for finding in findings(came) for cell in finding.cells]
    assert sorted(red_cells) == sorted(cell for cell in came if not cell.outcome.green)


@given(st.lists(changes))
def test_every_change_is_in_one_difference_gating_first(came: list[Change]) -> None:
    groups = differences(came)
    assert sum(len(group.kernels) for group in groups) == len(came)
    gates = [group.change.gates for group in groups]
    assert gates == sorted(gates, reverse=True)


@given(st.lists(cells))
def test_every_cell_is_in_one_file(came: list[Cell]) -> None:
    assert sorted(cell for same in by_file(came).values() for cell in same) == sorted(came)


def test_what_was_not_compared_is_not_said_to_be_the_same() -> None:
    same = result_sets.document([Cell("6.1", "t", Outcome.PASS)])
    assert unchanged(same) == "Nothing has changed against the baseline."
    for other in (replace(same, exit_status=2), replace(same, arguments=("--command=./loader",))):
        assert unchanged(other) == "This run was not compared with the baseline."


def test_the_same_reason_on_three_kernels_is_one_finding() -> None:
    red = [Cell(kernel, "t", Outcome.FAIL, detail=f"a.py:3\nE   no\n{kernel}") for kernel in ("5.10", "6.1", "7.3")]
    (common,) = findings([*red, Cell("7.4", "t", Outcome.PASS)])
    assert (common.kernels, common.line) == (("5.10", "6.1", "7.3"), "no")
    assert [finding.outcome for finding in findings([*red, Cell("8.0", "u", Outcome.CRASH)])] == [
        Outcome.CRASH,
        Outcome.FAIL,
    ]


def test_an_object_refused_for_one_reason_is_one_finding() -> None:
    """It has the name that its cells share; another object, and each test of a file, is one of its own."""
    cells = ("f::load", "f::attach", "g::load")
    red = [Cell("6.1", f"a.bpf.o::{cell}", Outcome.FAIL, detail="no") for cell in cells]
    assert [finding.test for finding in findings(red)] == ["a.bpf.o"]
    assert [finding.test for finding in findings(red[:2])] == ["a.bpf.o::f"]
    others = [Cell("6.1", test, Outcome.FAIL, detail="no") for test in ("b.bpf.o::f::load", "t.py::x", "t.py::y")]
    assert [finding.test for finding in findings([*red, *others])] == ["a.bpf.o", *(cell.test for cell in others)]


def test_the_shorter_of_two_names_is_what_they_share() -> None:
    assert shared_name(["a.bpf.o::f::load", "a.bpf.o::f"]) == "a.bpf.o::f"


@pytest.mark.parametrize(("status", "compared"), [(0, True), (1, True), (2, False), (3, True), (4, False), (5, True)])
def test_an_interrupted_or_wrong_run_is_not_compared(status: int, compared: bool) -> None:
    """2 and 4 are pytest's exit statuses for Ctrl-C and for wrong usage."""
    line = unchanged(result_sets.document([], exit_status=status))
    assert line.startswith("Nothing has changed") == compared


def test_cells_are_grouped_by_file_and_by_kernel() -> None:
    names = [("6.1", "b.py::x"), ("5.10", "a.py::y"), ("6.1", "a.py::x"), ("6.1", "boot")]
    first, second, third, fourth = came = [Cell(kernel, test, Outcome.PASS) for kernel, test in names]
    assert list(by_file(came).items()) == [("a.py", [third, second]), ("b.py", [first]), ("boot", [fourth])]
    assert list(by_kernel(came).items()) == [("6.1", [first, third, fourth]), ("5.10", [second])]


def test_the_same_change_on_two_kernels_is_shown_for_the_first() -> None:
    first, second = (Change(Kind.FIXED, kernel, "t", "fail", "pass") for kernel in ("5.10", "6.1"))
    gating = Change(Kind.GONE, "7.3", "t", "pass", "", gates=True)
    shown = [(joined.change, joined.kernels) for joined in differences([first, gating, second])]
    assert shown == [(gating, ("7.3",)), (first, ("5.10", "6.1"))]
