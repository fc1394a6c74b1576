"""The commands ``gate`` and ``diagnose OBJECT --kernel``: a run of the matrix with objects as its test files."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

from kernel_matrix.config import project as projects
from kernel_matrix.objects import build
from kernel_matrix.results import document
from kernel_matrix.results.findings import findings
from kernel_matrix.shared.outcomes.cells import Cell
from kernel_matrix.shared.project import ROOT_VARIABLE, Project

#: runs the matrix with these arguments of pytest
Matrix = Callable[[list[str]], int]


def run(kernels: Sequence[str], paths: Sequence[Path], matrix: Matrix, more: Sequence[str] = ()) -> int:
    """Load, attach and measure the objects on the kernels (none: core); return the exit status.

    Objects of the project's table are run as in any run of it; others as a project of their own, below the folder that
    they share, whose results come to this project. Raises ManifestError for a file that is no object.
    """
    objects = [build.checked(path).resolve() for path in paths]
    here = projects.find_any()
    words = [f"--kernel={name}" for name in kernels] + list(more)
    known = {here.root / path for path in here.object_files} if here else set()
    if here is not None and known.issuperset(objects):
        return matrix([*words, *(str(path) for path in objects)])
    root = here.root if here and all(path.is_relative_to(here.root) for path in objects) else _shared_folder(objects)
    os.environ[ROOT_VARIABLE] = str(root)
    os.environ[projects.OBJECTS_VARIABLE] = json.dumps([str(path.relative_to(root)) for path in objects])
    words += _of_project(here) if here is not None and here.root != root else []
    return matrix([*words, *(str(path) for path in objects)])


def _shared_folder(paths: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([path.parent for path in paths]))


def _of_project(here: Project) -> list[str]:
    """Return the options by which another folder's run uses this project's kernels and results."""
    return [f"--results={here.results}", f"--manifest={here.images}"]


def diagnose(path: Path, kernel: str, matrix: Matrix) -> tuple[int, list[str]]:
    """Load and attach an object in guests of a kernel; return the exit status, and a report."""
    here = projects.find_any()
    results = (here.results if here else _shared_folder([build.checked(path).resolve()]) / "results") / "diagnose"
    # not beside the matrix's runs: `latest` is one of those
    # the report is the output; what the run prints is for who waits
    with redirect_stdout(sys.stderr):
        status = run([kernel], [path], matrix, [f"--results={results}", "-k", "load or attach", "-qq"])
    return status, report(document.read(results / "latest").cells) if status in {0, 1} else []


def report(cells: Sequence[Cell]) -> list[str]:
    """Return a line for each program that is attached, and the cause and remedy of each refusal, once."""
    lines = []
    for cell in cells:
        where = dict(cell.observed).get("attached")
        if where is not None and cell.outcome.green:
            lines.append(f"{cell.test.split('::')[1]} on {cell.kernel}: attached: {where}")
    for finding in findings(cells):
        lines += [f"{finding.test} on {' '.join(finding.kernels)}: {finding.line}"]
        lines += [f"  {line}" for line in finding.cells[0].diagnosis.splitlines()]
    return lines
