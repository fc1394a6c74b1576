"""Showing the capability tables and rewriting them from what guests found."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from kernel_matrix.commands import capability_view
from kernel_matrix.results import document
from kernel_matrix.shared import wire
from kernel_matrix.shared.errors import HarnessError, ManifestError
from kernel_matrix.shared.outcomes import capability_table
from kernel_matrix.shared.outcomes.capability_table import Context, Table
from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from kernel_matrix.shared.project import Project
from tests import result_sets
from tests.projects import HERE, below

MEASURE = ("suites/test_measuring.py", "suites/every_cell.py")


def _table(minimum: str) -> Table:
    return Table(
        {"perf_event_paranoid": 3},
        ("perf_event_paranoid=2",),
        {
            "kprobe_execve attach perf": {
                Context("root"): "SYS_ADMIN",
                Context("root", "perf_event_paranoid=2"): minimum,
            }
        },
        {"array map_create": {Context("root"): "EPERM | BPF ok"}},
    )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    example = below(tmp_path, measure=MEASURE)
    example.baselines.mkdir()
    example.capabilities.write_text(capability_table.write({"6.1": _table("PERFMON | SYS_ADMIN")}, ["6.1"]))
    return example


def _shown(project: Project, *names: str, cells: bool = False) -> str:
    screen = Console(width=120)
    with screen.capture() as capture:
        for table in capability_view.show(project, names, cells=cells):
            screen.print(table)
    return capture.get()


def test_a_person_reads_the_sets_and_the_sysctl_they_are_for(project: Project) -> None:
    text = _shown(project, "6.1")
    assert "kernel.perf_event_paranoid=3" in text
    assert "PERFMON | SYS_ADMIN" in text
    assert "perf_event_paranoid=2" in text
    assert "array map_create" not in text
    assert "EPERM | BPF ok" in _shown(project, cells=True)


def test_a_kernel_that_is_not_recorded_is_told_how(project: Project) -> None:
    with pytest.raises(ManifestError, match=r"--update --kernel 7\.3"):
        _shown(project, "7.3")


def test_that_no_kernel_is_recorded_is_an_error(project: Project) -> None:
    project.capabilities.unlink()
    with pytest.raises(ManifestError, match=r"^baselines/capabilities\.json has no kernel: "):
        _shown(project)


def _run(project: Project, tables: dict[str, Table], status: int, arguments: list[str]) -> int:
    folder = project.results / "capabilities"
    folder.mkdir(parents=True)
    for kernel, table in tables.items():
        (folder / f"{kernel}.json").write_text(json.dumps(table.to_json()))
    assert arguments == ["--kernel", "6.1", "--kernel", "7.3", *MEASURE]
    return status


def test_what_an_update_asks_for_is_there() -> None:
    assert HERE.measure
    for name in HERE.measure:
        assert (HERE.root / name).is_file()


def test_an_update_rewrites_measured_rows_and_names_changes(project: Project) -> None:
    tables = {"6.1": _table("SYS_ADMIN"), "7.3": _table("SYS_ADMIN")}
    changes = capability_view.update(
        project, ["6.1", "7.3"], lambda arguments: _run(project, tables, 0, arguments), project.results
    )
    assert changes == [
        "6.1 kprobe_execve attach perf (root, perf_event_paranoid=2): minimal set gone: {PERFMON}",
        "7.3: new",
    ]
    assert list(capability_view.load(project)) == ["6.1", "7.3"]


def test_an_unmeasured_kernel_keeps_its_entry_and_is_red(project: Project) -> None:
    """A kernel that was not measured keeps its entry, and the command ends with an error."""
    before = project.capabilities.read_text()
    with pytest.raises(HarnessError, match=r"not measured: 6\.1, 7\.3; the run ended with status 3"):
        capability_view.update(
            project, ["6.1", "7.3"], lambda arguments: _run(project, {}, 3, arguments), project.results
        )
    assert project.capabilities.read_text() == before


@pytest.mark.parametrize("status", [2, 3, 4])
def test_what_an_earlier_run_has_measured_is_not_recorded(project: Project, status: int) -> None:
    """Its results lie there when this one ends before it has any."""
    before = project.capabilities.read_text()
    tables = {"6.1": _table("SYS_ADMIN"), "7.3": _table("SYS_ADMIN")}
    with pytest.raises(HarnessError, match=rf"^not measured: 6\.1, 7\.3; the run ended with status {status}$"):
        capability_view.update(
            project, ["6.1", "7.3"], lambda arguments: _run(project, tables, status, arguments), project.results
        )
    assert project.capabilities.read_text() == before


def test_a_kernel_whose_measuring_is_red_keeps_its_entry(project: Project) -> None:
    """That the run is red because a kernel has no baseline of the matrix yet is another thing."""
    tables = {"6.1": _table("SYS_ADMIN"), "7.3": _table("SYS_ADMIN")}
    cells = [Cell("6.1", "a.py::test_x", Outcome.PASS), Cell("7.3", "a.py::test_x", Outcome.PASS)]

    def run(arguments: list[str]) -> int:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(project.results)
        status = _run(project, tables, 1, arguments)
        wire.write(project.results / document.NAME, result_sets.document(cells, exit_status=1))
        return status

    assert "7.3: new" in capability_view.update(project, ["6.1", "7.3"], run, project.results)
    recorded = capability_view.load(project)["7.3"]
    cells[1] = Cell("7.3", "a.py::test_x", Outcome.FAIL)
    tables["7.3"] = _table("PERFMON")
    with pytest.raises(HarnessError, match=r"^not measured: 7\.3; the run ended with status 1$"):
        capability_view.update(project, ["6.1", "7.3"], run, project.results)
    assert capability_view.load(project)["7.3"] == recorded
