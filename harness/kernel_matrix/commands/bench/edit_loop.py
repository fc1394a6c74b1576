"""The edit loop, measured: one test file on one kernel, unchanged and after a changed line.

From the command to its end: what is run is what the user of this process types. The file is a copy of the one that the
project's table names for `bench`, so that nothing of the user's is changed.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median

from kernel_matrix.report.run_folder import RunRecord
from kernel_matrix.report.timeline import NAME, Timeline
from kernel_matrix.shared import hints, wire
from kernel_matrix.shared.errors import HarnessError
from kernel_matrix.shared.project import Project

#: runs before the measured ones: they save a guest, one that is prepared for the project, and a worker
_WARMING = 3


@dataclass(frozen=True, slots=True)
class Split:
    """Where the seconds of one run went."""

    total: float
    #: the start of Python, and of nox where that is what the user types
    start: float
    imports: float
    #: kernels, images, objects, accelerator
    plan: float
    #: the relay, and QEMU until the agent answers
    restore: float
    #: the project is carried in, and the guest collects
    collect: float
    tests: float
    #: the guests are let go
    end: float
    #: everything is judged and written
    report: float
    #: CPU seconds of the host's processes but the guest's
    host_cpu: float


@dataclass(frozen=True, slots=True)
class Loop:
    """One kernel's edit loop."""

    kernel: str
    unchanged: tuple[Split, ...]
    edited: tuple[Split, ...]


def measure(project: Project, kernel: str, runs: int) -> Loop:
    """Measure both, in that order, ``runs`` times each; raises HarnessError for a run that is not green."""
    with _copied(project) as file:
        words = ["--kernel", kernel, project.relative(file)]
        for _ in range(_WARMING):
            _run(project, words)
        unchanged = [_run(project, words) for _ in range(runs)]
        text = file.read_text()
        for number in range(_WARMING):
            file.write_text(f"{text}\n# warming {number}\n")
            _run(project, words)
        edited = []
        for number in range(runs):
            file.write_text(f"{text}\n# {number}\n")
            edited.append(_run(project, words))
    return Loop(kernel, tuple(unchanged), tuple(edited))


@contextmanager
def _copied(project: Project) -> Iterator[Path]:
    original = project.root / project.bench.file
    copy = original.with_name("test_edit_loop.py")
    if copy.exists():
        raise HarnessError(f"{project.relative(copy)} is in the way: `bench` writes a file of that name")
    copy.write_text(original.read_text())
    try:
        yield copy
    finally:
        copy.unlink()


def _run(project: Project, words: Sequence[str]) -> Split:
    results = project.results / "bench"
    matrix = [f"--results={results}", *words]
    command = hints.argv("matrix", matrix)
    before = os.times()
    began = time.monotonic()
    done = subprocess.run(command, cwd=project.root, capture_output=True, text=True, check=False)
    total = time.monotonic() - began
    after = os.times()
    if done.returncode != 0:
        raise HarnessError(
            f"{' '.join(command[1:])}: status {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    folder = (results / "latest").resolve()
    record = wire.decode((folder / "run.json").read_bytes(), RunRecord)
    passed = wire.decode((folder / NAME).read_bytes(), Timeline)
    (guest,) = record.guests
    if guest.first_test is None or guest.how != "restored":
        raise HarnessError(f"the guest was {guest.how} and not restored, or ran no test ({folder})")
    # the guest's clock began with QEMU, the timeline's with the run's process
    qemu = passed.first_test - guest.first_test
    cpu = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    return Split(
        total=total,
        start=total - passed.ended,
        imports=passed.imported,
        plan=passed.planned - passed.imported,
        restore=qemu + guest.ready - passed.planned,
        collect=passed.first_test - qemu - guest.ready,
        tests=passed.last_test - passed.first_test,
        end=passed.judged - passed.last_test,
        report=passed.ended - passed.judged,
        host_cpu=cpu,
    )


def markdown(loops: Sequence[Loop]) -> list[str]:
    """Return the table's lines: medians, of the total the least and the most too."""
    names = [field.name.replace("_", " ") for field in fields(Split)]
    return [
        "",
        "The edit loop of one test file: seconds from the command to its end, and where they went (medians):",
        "",
        f"| kernel | | {' | '.join(names)} |",
        "|---|---|" + "---|" * len(names),
        *[
            f"| {loop.kernel} | {what} | {_cells(splits)} |"
            for loop in loops
            for what, splits in (("unchanged", loop.unchanged), ("a line changed", loop.edited))
        ],
    ]


def _cells(splits: Sequence[Split]) -> str:
    columns = [[getattr(split, field.name) for split in splits] for field in fields(Split)]
    total, *rest = columns
    spread = f"{median(total):.2f} ({min(total):.2f} to {max(total):.2f})"
    return " | ".join([spread, *(f"{median(column):.2f}" for column in rest)])
