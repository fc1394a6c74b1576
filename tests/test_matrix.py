"""From cells to a verdict: what was expected and did not come is red, and nothing gets lost on the way."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from kernel_matrix.report import terminal
from kernel_matrix.results import matrix
from kernel_matrix.results.changes import Change, Kind
from kernel_matrix.shared.outcomes.cells import IMAGE, Cell, Outcome

kernels = st.sampled_from(["5.10", "6.1", "7.3"])
tests = st.sampled_from([f"suites/{file}.py::test_{name}" for file in "ab" for name in "xyz"])
cells = st.builds(Cell, kernels, tests, st.sampled_from(Outcome), detail=st.text(max_size=10))
expectations = st.sets(st.tuples(kernels, tests))


@given(st.lists(cells), expectations)
def test_every_expected_cell_exists_once_and_missing_is_red(came: list[Cell], expected: set[tuple[str, str]]) -> None:
    judged = matrix.Matrix.of(came, expected, ["5.10", "6.1", "7.3"])
    pairs = [(cell.kernel, cell.test) for cell in judged.cells]
    reported = {(cell.kernel, cell.test) for cell in came}
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == reported | expected
    missing = {(cell.kernel, cell.test) for cell in judged.red if (cell.kernel, cell.test) not in reported}
    assert missing == expected - reported


@given(st.lists(cells), expectations)
def test_the_status_is_zero_only_when_all_is_green(came: list[Cell], expected: set[tuple[str, str]]) -> None:
    judged = matrix.Matrix.of(came, expected, [])
    green = bool(judged.cells) and all(cell.outcome.green for cell in judged.cells)
    assert (matrix.exit_status(judged) == 0) == green
    # a red cell can never be hidden behind a green one of the same test
    assert not (green and any(not cell.outcome.green for cell in came))


@given(st.permutations([Cell("6.1", "t", outcome) for outcome in Outcome]))
def test_the_worst_of_two_results_of_a_cell_stays(came: list[Cell]) -> None:
    (cell,) = matrix.Matrix.of(came, [], ["6.1"]).cells
    assert cell.outcome is Outcome.CRASH


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([], 3),
        ([Outcome.LOST, Outcome.NOTRUN], 3),
        ([Outcome.LOST, Outcome.PASS], 1),
        ([Outcome.CRASH], 1),
        ([Outcome.PASS, Outcome.REFUSED, Outcome.SKIP, Outcome.XFAIL], 0),
        ([Outcome.PASS, Outcome.XPASS], 1),
        ([Outcome.PASS, Outcome.NOTRUN], 1),
    ],
)
def test_exit_status(outcomes: list[Outcome], status: int) -> None:
    came = [Cell("6.1", f"t{number}", outcome) for number, outcome in enumerate(outcomes)]
    assert matrix.exit_status(matrix.Matrix.of(came, [], ["6.1"])) == status


def gating(kind: Kind, *, gates: bool) -> Change:
    return Change(kind, "6.1", "t", "", "", gates=gates)


@pytest.mark.parametrize(
    ("red", "changes", "status"),
    [
        ([], [gating(Kind.COSTLIER, gates=True)], 1),
        ([], [gating(Kind.NEW, gates=False)], 0),
        ([Cell("7.0", IMAGE, Outcome.ERROR)], [], 3),
        ([Cell("7.0", IMAGE, Outcome.ERROR)], [gating(Kind.GONE, gates=True)], 1),
        ([Cell("7.0", IMAGE, Outcome.ERROR), Cell("6.1", "x", Outcome.FAIL)], [], 1),
        ([Cell("7.0", IMAGE, Outcome.ERROR), Cell("6.1", "x", Outcome.LOST)], [], 1),
        ([Cell("7.0", IMAGE, Outcome.ERROR), Cell("6.1", "boot", Outcome.CRASH)], [], 1),
    ],
)
def test_what_is_proven_is_never_hidden_by_the_infrastructure(
    red: list[Cell], changes: list[Change], status: int
) -> None:
    judged = matrix.Matrix.of([Cell("6.1", "t", Outcome.PASS), *red], [], ["6.1"])
    assert matrix.exit_status(judged, changes) == status


def test_a_guest_that_fails_to_boot_proves_no_baseline_wrong() -> None:
    judged = matrix.Matrix.of([Cell("6.1", "boot", Outcome.LOST)], [("6.1", "t")], ["6.1"])
    assert matrix.exit_status(judged, [gating(Kind.NEW, gates=True), gating(Kind.REGRESSION, gates=True)]) == 3


def test_every_outcome_has_a_sign_of_its_own_and_a_rank() -> None:
    assert len({outcome.sign for outcome in Outcome}) == len(Outcome) == 11
    assert sorted(Outcome, key=lambda outcome: outcome.traits.rank) == [
        *("pass", "refused", "skip", "xfail", "notrun", "xpass", "undeclared", "fail", "error", "lost", "crash"),
    ]
    assert {outcome for outcome in Outcome if outcome.green} == {"pass", "refused", "skip", "xfail"}


def test_the_table_counts_by_file_and_kernel() -> None:
    came = [
        Cell("5.10", "suites/a.py::x", Outcome.PASS),
        Cell("5.10", "suites/a.py::y", Outcome.CRASH, detail="kernel panic\nmore"),
        Cell("6.1", "suites/a.py::x", Outcome.PASS),
        Cell("6.1", "suites/b.py::x", Outcome.REFUSED),
    ]
    judged = matrix.Matrix.of(came, [("6.1", "suites/a.py::y")], ["5.10", "6.1"])
    screen = io.StringIO()
    Console(file=screen, width=100).print(terminal.render_table(judged, {"5.10": "5.10.0-35", "6.1": "6.1.0-56"}))
    lines = [" ".join(line.replace("│", " ").split()) for line in screen.getvalue().splitlines()]
    assert "suites/a.py 1 ✓ 1 ☠ 1 ✓ 1 ·" in lines
    assert "suites/b.py 1 ⊘" in lines
    assert "all 1 ✓ 1 ☠ 1 ✓ 1 ⊘ 1 ·" in lines
    assert terminal.red_lines(judged) == [
        "☠ crash  5.10 suites/a.py::y: kernel panic",
        "· notrun 6.1 suites/a.py::y: no report came",
    ]
    assert matrix.summary_line(judged.cells) == "2 pass, 1 refused, 1 crash, 1 notrun"


def test_the_table_counts_by_loader() -> None:
    """A kernel without tests of a loader has an empty field; a loader without any test has no row."""
    came = [
        Cell("5.10", "suites/a.py::x[libbpf-native]", Outcome.PASS),
        Cell("5.10", "suites/a.py::x[aya-native]", Outcome.REFUSED),
        Cell("6.1", "suites/a.py::x[libbpf-native]", Outcome.PASS),
        Cell("6.1", "suites/a.py::y", Outcome.PASS),
    ]
    judged = matrix.Matrix.of(came, [], ["5.10", "6.1"])
    screen = io.StringIO()
    Console(file=screen, width=100).print(terminal.render_table(judged, {}, ("libbpf", "aya", "bcc")))
    lines = [" ".join(line.replace("│", " ").split()) for line in screen.getvalue().splitlines()]
    assert "with libbpf 1 ✓ 1 ✓" in lines
    assert "with aya 1 ⊘" in lines
    assert "bcc" not in screen.getvalue()


def test_a_part_of_a_run_may_have_no_cells() -> None:
    empty = matrix.Matrix.of([], [], ["6.1"])
    assert matrix.exit_status(empty) == 3
    assert matrix.exit_status(empty, part=True) == 0
    lost = matrix.Matrix.of([Cell("6.1", "boot", Outcome.LOST)], [], ["6.1"])
    assert matrix.exit_status(lost, part=True) == 3


def test_a_kernel_must_run_what_others_of_its_variant_do() -> None:
    """A test that another kernel of the same variant collected is expected on this kernel too."""
    own = {"5.10": {"a", "b"}, "6.1": {"a"}, "6.1+locked": {"c"}, "7.3": set[str]()}
    # what is left out, and was collected nowhere, is not expected either
    pairs = matrix.expected(own, {"7.3": {"b", "d"}}, named=False)
    assert pairs == {("5.10", "a"), ("5.10", "b"), ("6.1", "a"), ("6.1", "b"), ("6.1+locked", "c"), ("7.3", "a")}
    assert matrix.expected(own, {}, named=True) == {("5.10", "a"), ("5.10", "b"), ("6.1", "a"), ("6.1+locked", "c")}


def test_no_two_outcomes_have_the_same_rank() -> None:
    """Else it would depend on which came first what a cell is."""
    assert sorted(outcome.traits.rank for outcome in Outcome) == list(range(len(Outcome)))


@pytest.mark.parametrize(
    ("trait", "outcomes"),
    [
        ("done", {"pass", "refused"}),
        ("cut_short", {"crash", "lost", "notrun"}),
        ("decided", set(Outcome) - {"lost", "notrun"}),
    ],
)
def test_a_trait_is_of_these_outcomes_alone(trait: str, outcomes: set[str]) -> None:
    assert {outcome for outcome in Outcome if getattr(outcome.traits, trait)} == outcomes


def test_the_later_of_two_equal_results_stays() -> None:
    came = [Cell("6.1", "t", Outcome.FAIL, detail=detail) for detail in ("first", "second")]
    (cell,) = matrix.Matrix.of(came, [], []).cells
    assert cell.detail == "second"


def test_cells_are_in_the_order_of_the_runs_kernels() -> None:
    """A kernel that the run does not name is behind them; one without a cell is no column."""
    came = [Cell(kernel, test, Outcome.PASS) for kernel in ("5.10", "6.1", "7.3") for test in ("b", "a")]
    judged = matrix.Matrix.of(came, [], ["7.3", "6.12", "6.1"])
    assert judged.kernels == ("7.3", "6.1", "5.10")
    pairs = [(cell.kernel, cell.test) for cell in judged.cells]
    assert pairs == [(kernel, test) for kernel in ("7.3", "6.1", "5.10") for test in ("a", "b")]


def test_without_a_cell_the_summary_says_so() -> None:
    assert matrix.summary_line([]) == "no cells"
