"""Outcomes and names."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from kernel_matrix.shared.outcomes.expect import (
    Decision,
    Phase,
    decide,
    join_nodeid,
    kernel_of_argument,
    loader_of,
    rerun,
    split_nodeid,
    without_options,
)

SETUP, CALL, TEARDOWN = (Phase(when, "passed") for when in ("setup", "call", "teardown"))


@pytest.mark.parametrize(
    ("phases", "outcome"),
    [
        ([SETUP, CALL, TEARDOWN], Outcome.PASS),
        ([SETUP, Phase("call", "passed", stated="refused"), TEARDOWN], Outcome.REFUSED),
        ([SETUP, Phase("call", "failed"), TEARDOWN], Outcome.FAIL),
        ([SETUP, Phase("call", "failed", stated="refused"), TEARDOWN], Outcome.FAIL),
        ([SETUP, Phase("call", "failed", text="[XPASS(strict)] why"), TEARDOWN], Outcome.XPASS),
        ([SETUP, Phase("call", "passed", xfail_reason="why"), TEARDOWN], Outcome.XPASS),
        ([SETUP, Phase("call", "skipped", xfail_reason="why"), TEARDOWN], Outcome.XFAIL),
        ([Phase("setup", "skipped", text="why"), TEARDOWN], Outcome.SKIP),
        ([Phase("setup", "failed"), TEARDOWN], Outcome.ERROR),
        ([SETUP, CALL, Phase("teardown", "failed")], Outcome.ERROR),
        # what a skip or an expected failure leaves behind is not excused by it
        ([SETUP, Phase("call", "skipped", xfail_reason="why"), Phase("teardown", "failed")], Outcome.ERROR),
        ([Phase("setup", "skipped", text="why"), Phase("teardown", "failed")], Outcome.ERROR),
        ([SETUP, Phase("call", "failed", stated="crash")], Outcome.CRASH),
        ([SETUP, Phase("call", "failed", stated="lost")], Outcome.LOST),
        ([SETUP], Outcome.NOTRUN),
        ([], Outcome.NOTRUN),
    ],
)
def test_the_phase_that_failed_or_else_was_skipped_decides(phases: list[Phase], outcome: Outcome) -> None:
    assert decide(phases).outcome is outcome


_PHASES = st.builds(
    Phase,
    st.sampled_from(["setup", "call", "teardown"]),
    st.sampled_from(["passed", "failed", "skipped"]),
    xfail_reason=st.sampled_from([None, "why"]),
    stated=st.sampled_from([None, "refused"]),
)


@given(st.lists(_PHASES))
def test_a_failed_phase_is_never_green(phases: list[Phase]) -> None:
    outcome = decide(phases).outcome
    if any(phase.result == "failed" for phase in phases):
        assert not outcome.green


@pytest.mark.parametrize(
    ("nodeid", "kernel", "test"),
    [
        ("a.py::test_x[6.1]", "6.1", "a.py::test_x"),
        ("a.py::test_x[6.1-native-5]", "6.1", "a.py::test_x[native-5]"),
        ("a.py::test_x[6.12-rt]", "6.12-rt", "a.py::test_x"),
        ("a.py::test_x[6.12-rt]", "6.12", "a.py::test_x[rt]"),
        ("a.py::test_x", "6.1", "a.py::test_x"),
    ],
)
def test_a_test_has_one_name_on_all_kernels(nodeid: str, kernel: str, test: str) -> None:
    assert split_nodeid(nodeid, kernel) == test


def test_options_are_left_out_with_their_values() -> None:
    given = ["-k", "x", "--results", "/tmp/a", "suites", "--results=/tmp/b", "--guests=2", "--resultsx"]
    assert without_options(given, {"--results", "--guests"}) == ("-k", "x", "suites", "--resultsx")
    assert without_options(["--results"], {"--results"}) == ()
    assert without_options(["--cold", "--ask-again", "x"], (), {"--ask-again"}) == ("--cold", "x")


# a test without parameters, and one with any: what pytest writes between brackets is anybody's text
names = st.from_regex(r"suites/[a-z]{1,5}\.py::test_[a-z]{1,5}", fullmatch=True)
tests = st.builds(lambda name, parameters: name + parameters, names, st.just("") | st.text().map("[{}]".format))
kernels = st.sampled_from(["6.1", "6.12", "6.12-rt", "6.1+lockdown_integrity"])


@given(tests, kernels)
def test_splitting_a_joined_node_id_gives_the_test_back(test: str, kernel: str) -> None:
    assert split_nodeid(join_nodeid(test, kernel), kernel) == test


@given(tests, kernels)
def test_the_command_gives_the_shell_exactly_that_node_id(test: str, kernel: str) -> None:
    assert shlex.split(rerun(test, kernel)) == ["kernel-matrix", "matrix", join_nodeid(test, kernel)]


def test_a_cell_reruns_by_node_id_and_a_file_by_kernel() -> None:
    assert rerun("suites/a.py::test_x[lldp]", "6.1") == 'kernel-matrix matrix "suites/a.py::test_x[6.1-lldp]"'
    assert rerun("suites/a.py::test_x", "6.1+lsm_bpf") == 'kernel-matrix matrix "suites/a.py::test_x[6.1+lsm_bpf]"'
    assert rerun("suites/a.py::test_x[$(x)]", "6.1") == "kernel-matrix matrix 'suites/a.py::test_x[6.1-$(x)]'"
    assert rerun("suites/a.py", "6.1") == 'kernel-matrix matrix --kernel 6.1 "suites/a.py"'
    assert rerun("boot", "6.1") == rerun("./loader --all suites/a.py", "6.1") == ""


def test_a_node_id_names_the_longest_kernel_that_fits() -> None:
    kernels = ["6.1", "6.12", "6.12-rt"]
    assert kernel_of_argument("a.py::t[6.12-rt]", kernels) == "6.12-rt"
    assert kernel_of_argument("a.py::t[6.12-native]", kernels) == "6.12"
    assert kernel_of_argument("a.py::t[6.1]", kernels) == "6.1"
    assert kernel_of_argument("a.py::t", kernels) is None
    assert kernel_of_argument("suites/xdp", kernels) is None


@pytest.mark.parametrize(
    ("test", "loader"),
    [
        ("a.py::x[aya]", "aya"),
        ("a.py::x[aya-native]", "aya"),
        ("a.py::x[native-aya]", ""),
        ("a.py::x[ayay]", ""),
        ("a.py::x", ""),
        ("a.py", ""),
        ("aya", ""),
        # the longer name is the loader's
        ("a.py::x[aya-old-native]", "aya-old"),
    ],
)
def test_a_test_s_loader_is_its_first_parameter(test: str, loader: str) -> None:
    assert loader_of(test, ("libbpf", "aya", "aya-old")) == loader


def test_what_nobody_declared_is_neither_failed_nor_passed() -> None:
    """In any phase; the text says what to declare."""
    for when in ("setup", "call"):
        decision = decide([Phase(when, "failed", stated="undeclared", text="its loader sets it")])
        assert decision == Decision(Outcome.UNDECLARED, "its loader sets it")
    assert not Outcome.UNDECLARED.green


def test_a_decision_has_the_texts_of_its_phase() -> None:
    failed = Phase("call", "failed", text="why", log="log", verifier="verifier", diagnosis="diagnosis")
    assert decide([SETUP, failed, TEARDOWN]) == Decision(Outcome.FAIL, "why", "log", "verifier", "diagnosis")
    assert decide([Phase("setup", "skipped", text="needs x")]) == Decision(Outcome.SKIP, "needs x")
    assert decide([SETUP, Phase("call", "skipped", xfail_reason="bug")]) == Decision(Outcome.XFAIL, "bug")
    assert decide([SETUP, Phase("call", "passed", xfail_reason="bug")]) == Decision(Outcome.XPASS, "bug")
    assert decide([SETUP]) == Decision(Outcome.NOTRUN, "no report of the test itself came")


def test_a_setup_that_says_xpass_is_an_error() -> None:
    """Only the test itself can pass against its mark."""
    assert decide([Phase("setup", "failed", text="[XPASS(strict)] why")]).outcome is Outcome.ERROR


def test_what_was_not_measured_took_no_time() -> None:
    assert Phase("call", "passed").duration == Cell("6.1", "t", Outcome.NOTRUN).duration == 0


def test_a_text_with_brackets_and_no_test_names_no_kernel() -> None:
    assert kernel_of_argument("suites/a[6.1]", ["6.1"]) is None
