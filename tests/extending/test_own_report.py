"""A report that is added without a change in the engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_matrix.config import project
from kernel_matrix.report import reports
from kernel_matrix.report.run_folder import RunDirectory, RunFacts
from kernel_matrix.results.matrix import Matrix
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from kernel_matrix.shared.project import Project

HERE = Path(__file__).parent


def project_with(folder: Path, *names: str) -> Project:
    """Return a project whose table names these reports."""
    (folder / "kernel-matrix.toml").write_text(f"reports = {list(names)}\n")
    (folder / "csv_report.py").write_text((HERE / "csv_report.py").read_text())
    own_project = project.load(folder)
    assert own_project is not None
    return own_project


def test_a_run_leaves_the_project_s_own_report_too(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "results", reports.of(project_with(tmp_path, "csv_report:REPORT")))
    run.console("6.1").write_text("panic\n")
    cells = [Cell("5.10", "a.py::x", Outcome.PASS, duration=1.5), Cell("6.1", "a.py::x", Outcome.CRASH)]
    facts = RunFacts("kvm", 1, ())
    run.finish(run.document(Matrix.of(cells, (), ["5.10", "6.1"]), facts), facts, ())
    assert (run.path / "matrix.csv").read_text().splitlines() == [
        "kernel,test,outcome,green,seconds,console",
        "5.10,a.py::x,pass,True,1.5,",
        '6.1,a.py::x,crash,False,0.0,"panic',
        '"',
    ]
    assert {"junit.xml", "matrix.md", "matrix.html"} <= {path.name for path in run.path.iterdir()}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("csv_report", "'csv_report' is no package.module:name"),
        ("no_such_module:REPORT", "no_such_module:REPORT: No module named 'no_such_module'"),
        ("csv_report:NOTHING", "csv_report:NOTHING: module 'csv_report' has no attribute 'NOTHING'"),
        ("kernel_matrix.report.reports:Html", "kernel_matrix.report.reports:Html: another report writes matrix.html"),
    ],
)
def test_a_report_that_is_not_there_is_one_line(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(ManifestError) as raised:
        reports.of(project_with(tmp_path, name))
    assert str(raised.value) == f"kernel-matrix.toml: reports: {why}"


@pytest.mark.parametrize("name", ["csv_report.py", "logging_loader.py", "one_program"])
def test_an_extension_is_small(name: str) -> None:
    place = HERE / name
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.suffix in {".py", ".c", ".toml"}]
    assert 0 < sum(len(path.read_text().splitlines()) for path in files) < 60
