"""What is different is named as what it is, and gates when it should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.config import manifest
from kernel_matrix.results import comparison
from kernel_matrix.results.baseline import Expectation
from kernel_matrix.results.changes import Change, Kind
from kernel_matrix.results.comparison import Scope, compare
from kernel_matrix.shared.bpf.costs import Cost
from kernel_matrix.shared.outcomes.cells import Outcome

COST = Cost(instructions=1000, states=100, peak_states=50, stack=64, translated=800, jited=1600, load=2.0)
EXPECTED = Expectation("6.1.0-56", "6.1.192-2", "abc", {"trace_execve": COST}, {"a.py::test_x": Outcome.PASS})


def one(before: Expectation, after: Expectation, scope: Scope | None = None) -> Change:
    (change,) = compare({"6.1": before}, {"6.1": after}, scope or Scope())
    return change


def outcomes(before: Outcome | None, after: Outcome | None, *, whole: bool = True) -> tuple[Change, ...]:
    old, new = (replace(EXPECTED, tests={"a.py::test_x": outcome} if outcome else {}) for outcome in (before, after))
    return compare({"6.1": old}, {"6.1": new}, Scope(whole=whole))


@pytest.mark.parametrize(
    ("before", "after", "kind", "gates"),
    [
        (Outcome.PASS, Outcome.FAIL, Kind.REGRESSION, True),
        (Outcome.REFUSED, Outcome.CRASH, Kind.REGRESSION, True),
        (Outcome.SKIP, Outcome.ERROR, Kind.REGRESSION, True),
        (Outcome.PASS, Outcome.LOST, Kind.REGRESSION, True),
        (Outcome.PASS, Outcome.NOTRUN, Kind.REGRESSION, True),
        (Outcome.PASS, Outcome.SKIP, Kind.SKIPPED, True),
        (Outcome.XFAIL, Outcome.SKIP, Kind.SKIPPED, True),
        (Outcome.PASS, Outcome.XFAIL, Kind.CHANGED, True),
        (Outcome.SKIP, Outcome.XFAIL, Kind.CHANGED, True),
        (Outcome.PASS, Outcome.REFUSED, Kind.CHANGED, True),
        (Outcome.PASS, None, Kind.GONE, True),
        (Outcome.SKIP, Outcome.PASS, Kind.FIXED, False),
        (Outcome.XFAIL, Outcome.PASS, Kind.FIXED, False),
        (Outcome.FAIL, Outcome.PASS, Kind.FIXED, False),
        (Outcome.FAIL, Outcome.CRASH, Kind.CHANGED, True),
        (None, Outcome.PASS, Kind.NEW, False),
        (None, Outcome.FAIL, Kind.NEW, True),
    ],
)
def test_a_change_of_a_test_is_named(before: Outcome | None, after: Outcome | None, kind: Kind, gates: bool) -> None:
    (change,) = outcomes(before, after)
    assert (change.kind, change.gates) == (kind, gates)
    assert (change.kernel, change.what) == ("6.1", "a.py::test_x")


def test_a_run_of_some_tests_loses_none() -> None:
    assert outcomes(Outcome.PASS, None, whole=False) == ()


@given(st.sampled_from(Outcome))
def test_the_same_is_no_change(outcome: Outcome) -> None:
    assert outcomes(outcome, outcome) == ()


@given(st.sampled_from(Outcome), st.sampled_from(Outcome))
def test_red_gates_unless_it_was_just_so(before: Outcome, after: Outcome) -> None:
    changes = outcomes(before, after)
    if not after.green and before != after:
        assert [change.gates for change in changes] == [True]
    if after in {Outcome.PASS, Outcome.REFUSED} and before not in {Outcome.PASS, Outcome.REFUSED}:
        assert [change.gates for change in changes] == [False]


def test_a_cost_gates_only_past_the_threshold() -> None:
    scope = Scope(cost_growth=0.1)
    grown = {
        count: replace(EXPECTED, costs={"trace_execve": replace(COST, instructions=count)}) for count in (1100, 1101)
    }
    assert compare({"6.1": EXPECTED}, {"6.1": grown[1100]}, scope) == ()
    change = one(EXPECTED, grown[1101], scope)
    assert (change.kind, change.gates, change.what) == (Kind.COSTLIER, True, "trace_execve")
    assert (change.before, change.after) == ("instructions 1000", "instructions 1101")


def test_a_cost_that_was_nothing_may_not_become_something() -> None:
    before = replace(EXPECTED, costs={"trace_execve": replace(COST, stack=0)})
    assert one(before, EXPECTED).kind is Kind.COSTLIER


def test_a_lower_cost_is_said_and_the_time_is_not_compared() -> None:
    after = replace(EXPECTED, costs={"trace_execve": replace(COST, states=80, load=90.0)})
    change = one(EXPECTED, after)
    assert (change.kind, change.gates, change.after) == (Kind.CHEAPER, False, "states 80")


def test_a_program_that_is_gone_gates_and_a_new_one_does_not() -> None:
    without = replace(EXPECTED, costs={})
    assert (one(EXPECTED, without).kind, one(EXPECTED, without).gates) == (Kind.GONE, True)
    assert (one(without, EXPECTED).kind, one(without, EXPECTED).gates) == (Kind.NEW, False)
    assert compare({"6.1": EXPECTED}, {"6.1": without}, Scope(whole=False)) == ()


@pytest.mark.parametrize("gates", [False, True])
def test_another_patch_version_is_a_drift_and_kept_apart(gates: bool) -> None:
    after = replace(EXPECTED, version="6.1.193-1", tests={"a.py::test_x": Outcome.FAIL})
    changes = compare({"6.1": EXPECTED}, {"6.1": after}, Scope(drift_gates=gates))
    drift = next(change for change in changes if change.kind is Kind.DRIFTED)
    failed = next(change for change in changes if change.kind is Kind.REGRESSION)
    assert drift.gates is gates
    assert "6.1.192-2" in drift.before
    assert "6.1.193-1" in drift.after
    assert failed.note == "the kernel has drifted: 6.1.192-2 -> 6.1.193-1"


def test_a_kernel_without_a_baseline_is_new_in_one_line() -> None:
    (change,) = compare({}, {"6.1": EXPECTED}, Scope())
    assert (change.kind, change.after, change.gates) == (Kind.NEW, "1 cells", False)


NAMED = Scope(kernels=frozenset({"6.1"}))


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("guest", ["6.1", "6.1+lsm_bpf"])
def test_a_kernel_of_the_manifest_without_a_baseline_gates(guest: str, whole: bool) -> None:
    """Its own command line or another's, a whole run or a part of one: the file was deleted, or never written."""
    others = {"7.3": EXPECTED}
    (change,) = compare(others, {guest: EXPECTED}, replace(NAMED, whole=whole))
    assert (change.kind, change.kernel, change.gates) == (Kind.NEW, guest, True)
    assert "`kernel-matrix baseline --update --kernel 6.1`" in change.note
    assert "it has no baseline" in str(change)


@pytest.mark.parametrize(("deleted", "left"), [("mine", "mine+lsm_bpf"), ("mine+lsm_bpf", "mine")])
def test_a_kernel_with_a_part_of_its_baseline_gates(deleted: str, left: str) -> None:
    """The project knows a kernel that no manifest of this run names."""
    present = {deleted: EXPECTED, left: EXPECTED}
    (change,) = compare({left: EXPECTED}, present, Scope())
    assert (change.kind, change.kernel, change.gates) == (Kind.NEW, deleted, True)


def test_a_partial_run_misses_no_costs_of_the_others() -> None:
    before = replace(EXPECTED, costs={"trace_execve": COST, "other": COST})
    after = replace(EXPECTED, costs={"trace_execve": replace(COST, instructions=5 * COST.instructions)})
    changes = {whole: compare({"6.1": before}, {"6.1": after}, Scope(whole=whole)) for whole in (True, False)}
    kinds = {whole: {change.kind for change in those} for whole, those in changes.items()}
    assert kinds == {True: {Kind.GONE, Kind.COSTLIER}, False: {Kind.COSTLIER}}


def test_costs_that_the_baseline_has_nothing_of_gate() -> None:
    without = replace(EXPECTED, costs={})
    changes = compare({"6.1": without}, {"6.1": EXPECTED}, NAMED)
    assert [(change.what, change.gates) for change in changes] == [("", True), ("trace_execve", False)]
    assert compare({"6.1": without}, {"6.1": without}, NAMED) == ()
    # a guest with a command line of a test's own measures none
    assert compare({"6.1+x": without}, {"6.1+x": without}, NAMED) == ()


def test_every_kernel_of_the_project_must_have_a_baseline() -> None:
    known = manifest.load(Path(__file__).resolve().parents[1] / "vmimages")
    assert known.gate.kernels == {kernel.name for kernel in known.kernels}


def test_a_guest_that_is_not_booted_any_more_is_gone() -> None:
    expected = {"6.1": EXPECTED, "6.1+lsm_bpf": EXPECTED, "7.3+lsm_bpf": EXPECTED}
    (change,) = compare(expected, {"6.1": EXPECTED}, Scope())
    assert (change.kind, change.kernel, change.gates) == (Kind.GONE, "6.1+lsm_bpf", True)
    assert compare(expected, {"6.1": EXPECTED}, Scope(whole=False)) == ()


def test_what_gates_comes_first_and_new_cells_are_counted() -> None:
    after = replace(
        EXPECTED,
        tests={"a.py::test_x": Outcome.FAIL} | {f"b.py::test_{number}": Outcome.PASS for number in range(30)},
    )
    changes = compare({"6.1": EXPECTED}, {"6.1": after}, Scope())
    assert changes[0].gates
    assert comparison.summary(changes) == "1 regression, 30 new"
    assert comparison.lines(changes, 5) == ["regression: 6.1 a.py::test_x: pass -> fail", "new: 6.1: 30 cells"]


def observing(**values: str) -> Expectation:
    return replace(EXPECTED, observed={"a.py::test_x": values} if values else {})


@pytest.mark.parametrize(
    ("before", "after"),
    [({"path": "link"}, {"path": "netlink"}), ({"path": "link"}, {}), ({}, {"path": "link"})],
    ids=["another", "gone", "not recorded"],
)
@pytest.mark.parametrize("whole", [False, True])
def test_another_observation_gates(before: dict[str, str], after: dict[str, str], whole: bool) -> None:
    """What is deleted from the record, or never was in it, is not approved either."""
    change = one(observing(**before), observing(**after), Scope(whole=whole))
    assert (change.kind, change.gates, change.what) == (Kind.OBSERVED, True, "a.py::test_x")
    assert (change.before, change.after) == tuple(f"path: {side['path']}" if side else "" for side in (before, after))


def test_each_observation_is_a_change_of_its_own() -> None:
    changes = compare({"6.1": observing(a="1", b="1", c="1")}, {"6.1": observing(a="2", b="1", c="2", d="1")}, Scope())
    assert [str(change) for change in changes] == [
        "observed otherwise: 6.1 a.py::test_x: a: 1 -> a: 2",
        "observed otherwise: 6.1 a.py::test_x: c: 1 -> c: 2",
        "observed otherwise: 6.1 a.py::test_x: - -> d: 1",
    ]


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if not outcome.traits.done])
def test_what_did_not_observe_changes_its_outcome_only(outcome: Outcome) -> None:
    """A test that is skipped, or red, has no observations to compare; one that is new has none recorded."""
    after = replace(EXPECTED, tests={"a.py::test_x": outcome})
    assert one(observing(path="link"), after).kind is not Kind.OBSERVED
    assert one(after, observing(path="link")).kind is not Kind.OBSERVED
    assert one(replace(EXPECTED, tests={}), observing(path="link")).kind is Kind.NEW


@pytest.mark.parametrize(("left_out", "gates"), [((), True), (("aya",), False), (("cilium",), True)])
def test_the_skips_of_a_loader_that_is_left_out_are_no_change(left_out: tuple[str, ...], gates: bool) -> None:
    """The run's head names the loader; what else is skipped gates as ever."""
    before = replace(EXPECTED, tests={"a.py::x[aya-native]": Outcome.PASS, "a.py::y": Outcome.PASS})
    after = replace(EXPECTED, tests={"a.py::x[aya-native]": Outcome.SKIP, "a.py::y": Outcome.PASS})
    changes = compare({"6.1": before}, {"6.1": after}, Scope(left_out=left_out))
    assert [(change.kind, change.gates) for change in changes] == ([(Kind.SKIPPED, True)] if gates else [])
    red = replace(EXPECTED, tests={"a.py::x[aya-native]": Outcome.FAIL, "a.py::y": Outcome.SKIP})
    assert all(change.gates for change in compare({"6.1": before}, {"6.1": red}, Scope(left_out=left_out)))


def test_a_cost_may_be_just_at_the_threshold() -> None:
    """Half of 1000 is exact in floating point, so that at the threshold is not past it."""
    scope = Scope(cost_growth=0.5)
    for count, kind in ((1500, None), (1501, Kind.COSTLIER), (500, None), (499, Kind.CHEAPER)):
        after = replace(EXPECTED, costs={"trace_execve": replace(COST, instructions=count)})
        kinds = [change.kind for change in compare({"6.1": EXPECTED}, {"6.1": after}, scope)]
        assert kinds == [kind] * (kind is not None)


def test_by_default_a_tenth_is_allowed_and_drift_does_not_gate() -> None:
    after = replace(EXPECTED, version="6.1.193-1", costs={"trace_execve": replace(COST, instructions=1099, states=111)})
    drift, cost = sorted(compare({"6.1": EXPECTED}, {"6.1": after}, Scope()), key=lambda change: change.gates)
    assert (drift.kind, drift.gates) == (Kind.DRIFTED, False)
    assert (cost.kind, cost.before, cost.after) == (Kind.COSTLIER, "states 100", "states 111")


def test_by_default_a_missing_test_is_gone() -> None:
    assert one(EXPECTED, replace(EXPECTED, tests={})).kind is Kind.GONE


def test_a_kernel_without_a_baseline_hides_no_other() -> None:
    broken = replace(EXPECTED, tests={"a.py::test_x": Outcome.FAIL})
    changes = compare({"6.12": EXPECTED}, {"5.10": EXPECTED, "6.12": broken}, Scope())
    assert [(change.kernel, change.kind) for change in changes] == [("6.12", Kind.REGRESSION), ("5.10", Kind.NEW)]


def test_a_kernel_is_the_projects_by_manifest_and_by_baseline() -> None:
    """One does not cancel the other."""
    present = {"6.1": EXPECTED, "6.1+lsm_bpf": EXPECTED}
    (change,) = compare({"6.1+lsm_bpf": EXPECTED}, present, NAMED)
    assert (change.kind, change.kernel, change.gates) == (Kind.NEW, "6.1", True)


def test_a_change_is_one_line() -> None:
    change = Change(Kind.NEW, "6.1", "", "", "3 cells")
    assert (str(change), change.gates) == ("new: 6.1: - -> 3 cells", False)
    assert str(Change(Kind.GONE, "6.1", "t", "pass", "", "why")) == "gone: 6.1 t: pass -> - (why)"


def test_lines_are_at_most_so_many_and_say_how_many_more() -> None:
    changes = [Change(Kind.GONE, "6.1", name, "pass", "", gates=True) for name in "abcd"]
    shown = [f"gone: 6.1 {name}: pass -> -" for name in "abcd"]
    assert comparison.lines(changes, 4) == shown
    assert comparison.lines(changes, 3) == [*shown[:3], "... and 1 more in matrix.json"]
    assert comparison.lines(changes, 1) == [*shown[:1], "... and 3 more in matrix.json"]


def test_new_tests_are_counted_unless_they_gate() -> None:
    """A kernel without a baseline is a line of its own."""
    gating, kernel = Change(Kind.NEW, "6.1", "t", "", "fail", gates=True), Change(Kind.NEW, "7.3", "", "", "9 cells")
    new = [Change(Kind.NEW, "6.1", name, "", "pass") for name in "ab"]
    shown = ["new: 6.1 t: - -> fail", "new: 7.3: - -> 9 cells", "new: 6.1: 2 cells"]
    assert comparison.lines([*new, gating, kernel], 9) == shown


def test_a_run_without_changes_has_no_lines() -> None:
    assert comparison.baseline_lines([], 9) == []
    change = Change(Kind.GONE, "6.1", "t", "pass", "")
    assert comparison.baseline_lines([change], 9) == ["against the baseline: 1 gone", "gone: 6.1 t: pass -> -"]


@pytest.mark.parametrize("version", ["6.1.191-1", "6.1.193-1"])
def test_an_older_kernel_is_a_drift_like_a_newer_one(version: str) -> None:
    assert one(EXPECTED, replace(EXPECTED, version=version)).kind is Kind.DRIFTED


def test_a_loader_that_is_left_out_hides_skips_alone() -> None:
    """Its tests may be red for another reason, and others change behind its own."""
    names = [f"a.py::test_{name}[bcc]" for name in "abc"] + ["b.py::test_d"]
    before = replace(EXPECTED, tests=dict.fromkeys(names, Outcome.PASS))
    now = [Outcome.SKIP, Outcome.FAIL, Outcome.XFAIL, Outcome.FAIL]
    after = replace(EXPECTED, tests=dict(zip(names, now, strict=True)))
    changes = compare({"6.1": before}, {"6.1": after}, Scope(left_out=("bcc",)))
    assert {(change.what, change.kind) for change in changes} == {
        (names[1], Kind.REGRESSION),
        (names[2], Kind.CHANGED),
        (names[3], Kind.REGRESSION),
    }


def test_a_run_of_some_tests_has_every_other_kind_of_change() -> None:
    before = replace(EXPECTED, tests={"a": Outcome.PASS, "b": Outcome.PASS, "c": Outcome.PASS})
    after = replace(EXPECTED, tests={"a": Outcome.XFAIL, "b": Outcome.FAIL, "d": Outcome.PASS})
    changes = compare({"6.1": before}, {"6.1": after}, Scope(whole=False))
    kinds = {(change.what, change.kind) for change in changes}
    assert kinds == {("a", Kind.CHANGED), ("b", Kind.REGRESSION), ("d", Kind.NEW)}
