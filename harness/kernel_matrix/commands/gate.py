"""The command ``gate``: load and attach each object on each kernel; each try is a cell of the report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import execnet

from kernel_matrix.commands import try_object
from kernel_matrix.objects import build
from kernel_matrix.plan import preparation
from kernel_matrix.plan.guest_list import RunRequest, arguments_without_tests
from kernel_matrix.plan.preparation import PlannedGuest
from kernel_matrix.report import reports, terminal
from kernel_matrix.report.run_folder import RunDirectory
from kernel_matrix.results import matrix
from kernel_matrix.shared.cells import IMAGE, Cell, Outcome
from kernel_matrix.shared.project import Project


def run(project: Project, kernels: Sequence[str], paths: Sequence[Path], say: Callable[[str], None]) -> int:
    """Try the objects on the kernels (none: core), write a report to results/latest; return the exit status.

    Each object has a guest of its own. Raises HarnessError.
    """
    names = names_of([build.checked(path).resolve() for path in paths])
    record = RunDirectory.create(project.results, reports.of(project))
    arguments = arguments_without_tests(project, kernels)
    request = RunRequest(tuple(kernels), arguments=arguments, guests=1, locked=False, silence=None, words=tuple(names))
    plan = preparation.prepare(project, request, record, say=say)
    cells = [Cell(kernel, IMAGE, Outcome.ERROR, detail=why) for kernel, why in plan.missing.items()]
    for name, path in names.items():
        for guest in plan.guests:
            cells.append(_cell(guest, record, name, path))
            say(f"{cells[-1].outcome.sign} {guest.kernel} {name}")
    for cell in cells:
        record.append(cell)
    judged = matrix.Matrix.of(cells, [], [*[guest.kernel for guest in plan.guests], *plan.missing])
    status = matrix.exit_status(judged)
    record.finish(record.document(judged, plan.facts, status), plan.facts, ())
    for line in [*terminal.red_lines(judged), matrix.summary_line(judged.cells)]:
        say(line)
    return status


def names_of(paths: Sequence[Path]) -> dict[str, Path]:
    """Return the objects by name: their paths below the folder that they share."""
    shared = os.path.commonpath([path.parent for path in paths])
    return {str(path.relative_to(shared)): path for path in paths}


def _cell(guest: PlannedGuest, record: RunDirectory, name: str, path: Path) -> Cell:
    began = time.monotonic()
    try:
        succeeded, text = try_object.try_in_guest(guest, path)
    except (EOFError, OSError, execnet.RemoteError) as error:
        why = f"its guest gave no answer ({error}); console: {record.console(guest.kernel).relative_to(record.path)}"
        return Cell(guest.kernel, name, Outcome.LOST, guest.release, time.monotonic() - began, why)
    outcome = Outcome.PASS if succeeded else Outcome.FAIL
    return Cell(guest.kernel, name, outcome, guest.release, time.monotonic() - began, "" if succeeded else detail(text))


def detail(text: str) -> str:
    """Move the first refusal to the front of a report of `guest.bpf.diagnosis.trying`: some reports show one line."""
    first = next((line for line in text.splitlines() if ": refused at " in line or ": attached, in vain" in line), "")
    return f"{first}\n{text}" if first else text
