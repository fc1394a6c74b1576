"""One cell again and again, each time in a guest that nothing has run in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from kernel_matrix.shared.outcomes.cells import Outcome
from tests.result_sets import read_cells

ROOT = Path(__file__).resolve().parents[2]
CASES = "tests/faults/cases"


def rerun(results: Path, *words: str) -> tuple[int, str, list[Outcome]]:
    command = [sys.executable, "-m", "kernel_matrix", "rerun", f"--results={results}", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=300)
    return done.returncode, done.stdout, [cell.outcome for cell in read_cells(results / "latest" / "results.jsonl")]


def test_every_repetition_has_a_fresh_guest(tmp_path: Path) -> None:
    status, output, outcomes = rerun(tmp_path, "6.1", f"{CASES}/case_leak.py::test_leaks", "--repeat", "2")
    assert (status, outcomes) == (0, [Outcome.PASS] * 2), output
    assert "2 pass" in output


def test_a_repetition_that_kills_its_guest_is_one_outcome(tmp_path: Path) -> None:
    status, output, outcomes = rerun(tmp_path, f"{CASES}/case_panic.py::test_panic[6.1]", "--repeat", "2")
    assert (status, outcomes) == (1, [Outcome.CRASH] * 2), output
    assert "2 crash" in output
