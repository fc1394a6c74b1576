"""The guest of the first failure stays as it is, is entered, and goes when its user says so."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel_matrix.shared.outcomes.cells import Outcome
from tests.processes import gone
from tests.result_sets import read_cells

ROOT = Path(__file__).resolve().parents[2]
KERNEL = "6.1"
LIMIT = 300.0


class Kept:
    """A run that keeps its guest."""

    def __init__(self, results: Path, *arguments: str) -> None:
        self.results = results
        self.log = results / "log"
        run = [
            sys.executable,
            "-m",
            "kernel_matrix",
            "matrix",
            f"--results={results}",
            "--kernel",
            KERNEL,
            "--keep-guest",
        ]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                # a background job of a shell ignores Ctrl-C, and so would this
                ["env", "--default-signal=INT", *run, *arguments, "tests/faults/cases/case_keep.py"],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + LIMIT
        while not (match := re.search(r"--enter (\w+)\n(?s:.*)Ctrl-C ends", self.log.read_text())):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            select.select([], [], [], 0.05)
        self.name = match[1]

    def enter(self, command: str, text: str = "") -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "kernel_matrix", "shell", "--enter", self.name, command]
        return subprocess.run(words, input=text, capture_output=True, text=True, check=False, cwd=ROOT, timeout=LIMIT)

    def group(self) -> int:
        path = next((self.results / "latest").glob("guests-*/*.started.json"))
        group: int = json.loads(path.read_bytes())["group"]
        return group

    def ends(self) -> int:
        status = self.process.wait(LIMIT)
        assert gone(self.group()), "its guest outlived the run"
        return status


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    run = Kept(tmp_path)
    yield run
    if run.process.poll() is None:
        run.process.kill()
        run.process.wait()


def test_a_kept_guest_is_entered_again_and_again_until_ctrl_c(kept: Kept) -> None:
    done = kept.enter("cat; ip netns exec test-2 ip -o link; exit 4", "said\n")
    assert done.returncode == 4, done.stderr
    assert done.stdout.startswith("said\n")
    assert "far@" in done.stdout
    done = kept.enter("uname -r")
    assert (done.returncode, done.stdout[:4]) == (0, "6.1."), done.stderr
    os.killpg(kept.process.pid, signal.SIGINT)
    assert kept.ends() == 1
    cells = read_cells(kept.results / "latest" / "results.jsonl")
    outcomes = {cell.test.rpartition("::")[2]: cell.outcome for cell in cells}
    wanted = {"test_before": Outcome.PASS, "test_fails": Outcome.FAIL, "test_after": Outcome.NOTRUN}
    assert outcomes == wanted


def test_the_panic_of_a_kept_guest_ends_run_and_shells(kept: Kept) -> None:
    """A kept guest that panics ends the run, and every shell that is open in the guest."""
    done = kept.enter("echo c > /proc/sysrq-trigger")
    assert (done.returncode, done.stderr) == (3, f"kernel-matrix: the guest {kept.name} has ended\n")
    assert kept.ends() == 1
    assert "the kept guest has ended" in kept.log.read_text()
