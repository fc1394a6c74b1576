"""The command ``soak``: the same tests many times over, each time in another order, beside processes that compute.

Tests may become slower by that, and no outcome may change. What changes once is a test that depends on its neighbours
or on time, or a program that does.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.results import document
from kernel_matrix.shared.errors import HarnessError, ManifestError
from kernel_matrix.shared.project import Project
from kernel_matrix.vm.process_guard import GuardedGroup

#: kernel and test
Cell = tuple[str, str]
#: how a run names a cell that it has no outcome of
ABSENT = "absent"
_CONFIDENCE = 0.95
_HOG = "while True: pass"
#: seconds that the matrix has to end its guests after Ctrl-C
_SECONDS_TO_END = 30.0
#: exit statuses of a run that has an outcome for each cell: green, and red
_JUDGED = frozenset({0, 1})


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for."""

    runs: int
    #: the order of the first run; each next one has the next
    seed: int
    #: processes that compute beside the guests; None: two for each processor
    hogs: int | None
    #: the matrix's own words
    words: Sequence[str] = ()


def run(project: Project, asked: Asked, say: Callable[[str], None]) -> int:
    """Run the matrix again and again; return 1 if an outcome changed, 2 after Ctrl-C, else 0. Raises HarnessError."""
    if asked.runs < 1 or (asked.hogs or 0) < 0:
        raise ManifestError(
            f"--runs {asked.runs}: at least one" if asked.runs < 1 else f"--hogs {asked.hogs}: 0 or more"
        )
    runs: list[dict[Cell, str]] = []
    status_without_changes = 0
    try:
        for seed in range(asked.seed, asked.seed + asked.runs):
            began = time.monotonic()
            status, outcomes = _one(project, asked, seed)
            runs.append(outcomes)
            counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(Counter(outcomes.values()).items()))
            seconds = f"{time.monotonic() - began:.0f} s"
            say(f"run {len(runs)} of {asked.runs}, order {seed}: {counts}; status {status}, {seconds}")
    except KeyboardInterrupt:
        say(f"interrupted in run {len(runs) + 1}")
        status_without_changes = 2
    found = changed(runs)
    for (kernel, test), outcomes_of_cell in found.items():
        say(f"changed: {kernel} {test}: {' '.join(outcomes_of_cell)}")
    say(summary(runs, len(found)))
    return 1 if found else status_without_changes


def changed(runs: Sequence[Mapping[Cell, str]]) -> dict[Cell, tuple[str, ...]]:
    """Return the cells that had not the same outcome in every run, with that of each run."""
    cells = sorted({cell for outcomes in runs for cell in outcomes})
    by_cell = {cell: tuple(outcomes.get(cell, ABSENT) for outcomes in runs) for cell in cells}
    return {cell: outcomes for cell, outcomes in by_cell.items() if len(set(outcomes)) > 1}


def summary(runs: Sequence[Mapping[Cell, str]], changes: int) -> str:
    """Return what the runs show, in a line."""
    tried = sum(len(outcomes) for outcomes in runs)
    if not tried:
        return "no run came to its end"
    cells = f"{len(runs)} runs of {max(map(len, runs))} cells"
    if changes:
        return f"{cells}: {changes} changed"
    # the probability of a change for which seeing none in so many trials has a probability of 1 - _CONFIDENCE
    rate = 1 - (1 - _CONFIDENCE) ** (1 / tried)
    return f"{cells}: none changed; with {_CONFIDENCE:.0%} confidence fewer than 1 of {int(1 / rate):,} tests would"


def _one(project: Project, asked: Asked, seed: int) -> tuple[int, dict[Cell, str]]:
    """Run the matrix once; return its exit status, and the outcome of each cell."""
    results = project.results / "soak"
    results.mkdir(parents=True, exist_ok=True)
    output = results / "output.log"
    before = _last(results)
    with _hogs(_hogs_of(asked), output), output.open("ab") as sink:
        command = [sys.executable, "-m", "kernel_matrix", "matrix"]
        words = [f"--results={results}", f"--order={seed}", *asked.words]
        with subprocess.Popen([*command, *words], stdout=sink, stderr=sink) as matrix:
            try:
                status = matrix.wait()
            except KeyboardInterrupt:  # the matrix got it, too, and ends its guests
                matrix.wait(_SECONDS_TO_END)
                raise
    folder = _last(results)
    if status not in _JUDGED or folder is None or folder == before:
        lines = output.read_text(errors="replace").splitlines()
        failure = ManifestError if status == ManifestError.exit_status else HarnessError
        raise failure(f"the matrix ended with status {status}: {lines[-1] if lines else 'no output'} ({output})")
    cells = document.read(folder).cells
    return status, {(cell.kernel, cell.test): str(cell.outcome) for cell in cells}


def _last(results: Path) -> Path | None:
    link = results / "latest"
    return link.resolve() if link.exists() else None


def _hogs_of(asked: Asked) -> int:
    """Return how many processes compute."""
    return 2 * (os.cpu_count() or 1) if asked.hogs is None else asked.hogs


@contextlib.contextmanager
def _hogs(count: int, output: Path) -> Iterator[None]:
    """Let so many processes compute for the block."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            hog = GuardedGroup([sys.executable, "-c", _HOG], output=output, environment=dict(os.environ))
            stack.callback(hog.kill)
        yield
