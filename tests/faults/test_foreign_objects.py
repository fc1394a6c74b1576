"""Objects that nobody here wrote a test for: every cell of the cases on every core kernel, with its cause."""

from __future__ import annotations

import os
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from kernel_matrix.results import document
from kernel_matrix.results.document import Document
from kernel_matrix.shared.outcomes.cells import Cell
from tests import foreign_cases
from tests.projects import HERE

LIMIT = 1200.0


def _run(folder: Path, cases: Path, *words: str) -> Document:
    """Run the cases of a folder on every core kernel."""
    foreign_cases.make_project(folder, cases)
    command = [sys.executable, "-m", "kernel_matrix", "matrix", f"--manifest={HERE.images}", "-q", *words]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KERNEL_MATRIX_")}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return document.read(folder / "results" / "latest")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Document:
    return _run(tmp_path_factory.mktemp("foreign"), foreign_cases.CASES)


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> Document:
    return _run(tmp_path_factory.mktemp("refusals"), foreign_cases.REFUSALS, "-k", "attach")


def test_every_cell_of_the_cases_is_as_expected(results: Document) -> None:
    check(results, foreign_cases.expected())


def test_every_refusal_is_as_expected(refusals: Document) -> None:
    check(refusals, foreign_cases.expected(foreign_cases.REFUSALS))


def check(results: Document, table: dict[str, dict[str, foreign_cases.Wanted]]) -> None:
    """Compare the cells with the table, and the table with the cells."""
    assert wrong(results.cells, table) == []
    kernels = {cell.kernel for cell in results.cells}
    for pattern, rows in table.items():
        assert set(rows) <= kernels, f"{pattern}: no such kernel in the run"
    tests = {cell.test.removeprefix("objects/") for cell in results.cells}
    for pattern in table:
        assert any(fnmatchcase(test, pattern) for test in tests), pattern


def wrong(cells: tuple[Cell, ...], table: dict[str, dict[str, foreign_cases.Wanted]]) -> list[str]:
    """Describe the cells that are not what is expected of them."""
    lines = []
    for cell in cells:
        test = cell.test.removeprefix("objects/")
        want = foreign_cases.wanted(test, cell.kernel, table)
        if cell.outcome != want.outcome or not cell.detail.startswith(want.text):
            line = cell.detail.partition("\n")[0]
            lines.append(f"{cell.kernel} {test}: {cell.outcome}: {line} (expected {want.outcome}: {want.text})")
    return lines
