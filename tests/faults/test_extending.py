"""A project of one program: its own loader, report, suite and baseline, and the engine as it is (with VMs)."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXTENDING = Path(__file__).parents[1] / "extending"
TEST = "suite/test_drop_all.py::test_every_frame_is_dropped_and_counted"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the example, with the modules that it names."""
    folder = tmp_path / "project"
    shutil.copytree(EXTENDING / "one_program", folder)
    for name in ("csv_report.py", "logging_loader.py"):
        shutil.copy(EXTENDING / name, folder)
    return folder


def run(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the matrix there, on one kernel."""
    command = [sys.executable, "-m", "kernel_matrix", "matrix", "--kernel", "6.1", *words]
    environment = {name: value for name, value in os.environ.items() if name != "KERNEL_MATRIX_NOX"}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def cells(project: Path) -> list[dict[str, str]]:
    with (project / "results" / "latest" / "matrix.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_project_of_one_program_has_all_of_it(project: Path) -> None:
    done = run(project, "-rA", "-o", "log_level=INFO")
    assert done.returncode == 0, done.stdout
    # which says nothing where nothing has changed
    assert "against the baseline" not in done.stdout
    assert "load drop_all.bpf.o with libbpf" in done.stdout
    assert [(cell["kernel"], cell["test"], cell["outcome"]) for cell in cells(project)] == [("6.1", TEST, "pass")]


def test_a_change_of_its_program_is_a_regression(project: Path) -> None:
    source = project / "bpf" / "drop_all.bpf.c"
    source.write_text(source.read_text().replace("return XDP_DROP", "return XDP_PASS"))
    done = run(project)
    assert done.returncode == 1
    assert f"regression: 6.1 {TEST}: pass -> fail" in done.stdout
    assert [cell["outcome"] for cell in cells(project)] == ["fail"]
