"""Each kind of regression is reported as what it is, and gates: real runs against baselines that expect otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kernel_matrix.results import baseline, document
from kernel_matrix.results.baseline import Expectation
from kernel_matrix.results.changes import Kind
from kernel_matrix.shared.outcomes.cells import Outcome

ROOT = Path(__file__).resolve().parents[2]
CASE = "tests/faults/cases/case_gate.py"
KERNEL = "6.1"
LIMIT = 600.0


def run(folder: Path, *more: str) -> tuple[int, str]:
    """Run the case as the whole of the tests, against the baseline in ``folder``."""
    words = ["--kernel", KERNEL, f"--results={folder / 'results'}", f"--baseline={folder / 'baseline'}"]
    command = [sys.executable, "-m", "kernel_matrix", "matrix", *words, "-o", f"testpaths={CASE}", *more]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False, timeout=LIMIT)
    return done.returncode, done.stdout + done.stderr


def changes(folder: Path) -> dict[str, tuple[Kind, bool]]:
    """Return what the last run reported: test or program -> its kind, and whether it gates."""
    entries = document.read(folder / "results" / "latest").changes
    return {change.what.rpartition("::")[2]: (change.kind, change.gates) for change in entries}


@pytest.fixture(scope="module")
def observation(tmp_path_factory: pytest.TempPathFactory) -> Expectation:
    """What a run without a baseline finds: that it has none, and that makes it red, too."""
    folder = tmp_path_factory.mktemp("found")
    status, output = run(folder)
    assert status == 1, output
    assert changes(folder) == {"": (Kind.NEW, True)}
    return baseline.of_document(document.read(folder / "results" / "latest"))[KERNEL]


def test_every_kind_of_regression_is_named_and_gates(tmp_path: Path, observation: Expectation) -> None:
    cost = observation.costs["xdp_packet_counter"]
    tests = {f"{CASE}::{name}": Outcome.PASS for name in ("test_passes", "test_skipped", "test_fails", "test_lost")}
    expected = replace(
        observation,
        version="6.1.1-1",
        costs={"xdp_packet_counter": replace(cost, instructions=cost.instructions // 2)},
        tests=tests,
    )
    baseline.write(tmp_path / "baseline", KERNEL, expected)
    status, output = run(tmp_path)
    assert status == 1, output
    assert changes(tmp_path) == {
        "test_fails": (Kind.REGRESSION, True),
        "test_skipped": (Kind.SKIPPED, True),
        "test_lost": (Kind.GONE, True),
        "xdp_packet_counter": (Kind.COSTLIER, True),
        "": (Kind.DRIFTED, False),
        "test_costs": (Kind.NEW, False),
    }
    assert "1 regression, 1 now skipped, 1 gone, 1 cost grew, 1 kernel drifted, 1 new" in output
    assert f"cost grew: {KERNEL} xdp_packet_counter: instructions {cost.instructions // 2}" in output


def test_a_cost_alone_makes_a_green_run_red(tmp_path: Path, observation: Expectation) -> None:
    cost = observation.costs["xdp_packet_counter"]
    cheaper = {"xdp_packet_counter": replace(cost, jited=cost.jited // 2)}
    expected = replace(observation, costs=cheaper, tests={f"{CASE}::test_costs": Outcome.PASS})
    baseline.write(tmp_path / "baseline", KERNEL, expected)
    status, output = run(tmp_path, "-k", "costs")
    assert "1 passed" in output
    assert status == 1, output
    assert changes(tmp_path) == {"xdp_packet_counter": (Kind.COSTLIER, True)}


def test_a_baseline_that_expects_what_is_found_says_nothing(tmp_path: Path, observation: Expectation) -> None:
    green = {test: outcome for test, outcome in observation.tests.items() if outcome.green}
    baseline.write(tmp_path / "baseline", KERNEL, replace(observation, tests=green))
    status, output = run(tmp_path, "--deselect", f"{CASE}::test_fails")
    assert status == 0, output
    assert changes(tmp_path) == {}
    assert "against the baseline" not in output
