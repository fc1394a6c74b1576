"""A run in shards finds what the whole run finds, and a run that is not whole is not joined (with guests)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kernel_matrix.results import document
from kernel_matrix.shared.outcomes.cells import Outcome

ROOT = Path(__file__).resolve().parents[2]
#: one loader: what is joined are files' cells
RUN = ("matrix", "--kernel", "6.1", "--kernel", "5.10", "--loader", "libbpf", "suites/features", "suites/execve")
#: far more than it takes on a machine that does ten other things
LIMIT = 900.0


def _harness(*words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "kernel_matrix", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def _cells(results: Path) -> list[tuple[str, str, Outcome]]:
    return [(cell.kernel, cell.test, cell.outcome) for cell in document.read(results / "latest").cells]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shards")
    for index in (1, 2):
        status, output = _harness(*RUN, f"--results={folder / str(index)}", "--shard", f"{index}/2")
        assert status == 0, output
    return [folder / "1", folder / "2"]


def test_two_shards_joined_are_the_whole_run(shards: list[Path], tmp_path: Path) -> None:
    status, output = _harness(*RUN, f"--results={tmp_path / 'whole'}")
    assert status == 0, output
    status, output = _harness("merge", *map(str, shards), f"--results={tmp_path / 'joined'}")
    assert status == 0, output
    cells = _cells(tmp_path / "whole")
    assert len(cells) > 100
    assert _cells(tmp_path / "joined") == cells
    parts = [_cells(shard) for shard in shards]
    assert all(parts)
    assert sorted(parts[0] + parts[1]) == sorted(cells)


def test_a_shard_that_is_missing_or_there_twice_is_refused(shards: list[Path], tmp_path: Path) -> None:
    one = str(shards[0])
    assert _harness("merge", one, f"--results={tmp_path}") == (4, "kernel-matrix: missing: shard 2/2\n")
    status, output = _harness("merge", one, one, f"--results={tmp_path}")
    assert (status, output) == (4, f"kernel-matrix: shard 1/2 appears twice: {one} and {one}\n")


@pytest.mark.parametrize("text", ["0/3", "4/3", "x"])
def test_what_is_no_shard_is_a_line(text: str, tmp_path: Path) -> None:
    status, output = _harness(*RUN, f"--results={tmp_path}", "--shard", text)
    assert (status, output) == (4, f"Exit: --shard {text}: not a part such as 2/5\n")


def test_a_shard_with_nothing_to_run_is_green_and_says_so(tmp_path: Path) -> None:
    status, output = _harness(*RUN, f"--results={tmp_path}", "--shard", "99/99")
    assert status == 0, output
    assert "shard 99/99 has nothing to run" in output
    assert document.read(tmp_path / "latest").shard == "99/99"
