"""A command of the user's own on the kernels: its exit status is the cell, whatever becomes of its guest."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from kernel_matrix.shared.outcomes.cells import Outcome
from tests.processes import gone
from tests.result_sets import read_cells

ROOT = Path(__file__).resolve().parents[2]
KERNEL = "6.1"
OTHER = "5.10"
LIMIT = 300.0


def run_command(results: Path, *words: str) -> list[str]:
    # a background job of a shell ignores Ctrl-C, and so would this
    run = [sys.executable, "-m", "kernel_matrix", "run", f"--results={results}", *words]
    return ["env", "--default-signal=INT", *run]


def run(results: Path, *words: str) -> tuple[int, str, dict[tuple[str, str], Outcome]]:
    done = subprocess.run(
        run_command(results, *words), capture_output=True, text=True, check=False, cwd=ROOT, timeout=LIMIT
    )
    cells = read_cells(results / "latest" / "results.jsonl")
    return done.returncode, done.stdout, {(cell.kernel, cell.test): cell.outcome for cell in cells}


def test_the_exit_status_is_each_kernels_own_cell(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "loader").write_text('#!/bin/sh\npwd; uname -r; test "$(uname -r | cut -d. -f1)" -ge "$1"\n')
    (folder / "loader").chmod(0o755)
    kernels = ["--kernel", KERNEL, "--kernel", OTHER]
    status, output, cells = run(tmp_path, *kernels, "--carry", str(folder), "--", "./loader", "6")
    assert status == 1, output
    assert cells == {(KERNEL, "./loader 6"): Outcome.PASS, (OTHER, "./loader 6"): Outcome.FAIL}
    assert f"{KERNEL}: /carried\n" in output
    kept = (tmp_path / "latest" / "output" / f"{OTHER}.log").read_text().splitlines()
    assert kept[0] == "/carried"
    assert kept[1].startswith("5.10.")


def test_a_panic_is_a_crash_and_what_was_said_before_is_kept(tmp_path: Path) -> None:
    status, output, cells = run(
        tmp_path, "--kernel", KERNEL, "--", "echo before; sleep 3; echo c > /proc/sysrq-trigger"
    )
    assert (status, [*cells.values()]) == (1, [Outcome.CRASH]), output
    assert (tmp_path / "latest" / "output" / f"{KERNEL}.log").read_text() == "before\n"


def test_only_a_command_without_output_counts_as_lost(tmp_path: Path) -> None:
    """A command that writes nothing for too long is lost; one that keeps writing is not."""
    # a guest is silent for longer than that at no other time, also on a busy machine
    silence = 24
    quiet = f"for i in 1 2 3 4 5 6; do sleep {silence // 4}; $0; done"
    arguments = ["--kernel", KERNEL, "--silence", str(silence), "--"]
    status, output, cells = run(tmp_path, *arguments, "sh", "-c", quiet, "true")
    assert (status, [*cells.values()]) == (1, [Outcome.LOST]), output
    status, output, cells = run(tmp_path, *arguments, "sh", "-c", quiet, "date")
    assert (status, [*cells.values()]) == (0, [Outcome.PASS]), output


def test_ctrl_c_ends_the_command_and_its_guest(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            run_command(tmp_path, "--kernel", KERNEL, "--", "echo it has begun; sleep 1000"),
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    end = time.monotonic() + LIMIT
    while b"6.1: it has begun" not in (tmp_path / "log").read_bytes() and time.monotonic() < end:
        select.select([], [], [], 0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(LIMIT) == 2, (tmp_path / "log").read_text()
    started = json.loads(next((tmp_path / "latest").glob("guests-*/*.started.json")).read_bytes())
    assert gone(started["group"])
