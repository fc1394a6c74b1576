"""`baseline` and `compare`, from result sets on disk to what is said, written and returned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kernel_matrix.commands import baseline_view
from kernel_matrix.results import baseline, document
from kernel_matrix.results.document import VERSION, Column, Document
from kernel_matrix.shared import wire
from kernel_matrix.shared.bpf.costs import Cost
from kernel_matrix.shared.errors import HarnessError, ManifestError
from kernel_matrix.shared.outcomes import proposals
from kernel_matrix.shared.outcomes.cells import IMAGE, Cell, Outcome
from kernel_matrix.shared.project import Project
from tests.projects import below

COST = Cost(1000, 100, 50, 64, 800, 1600, 2.0)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with this one's manifest and no baseline."""
    return below(tmp_path)


def run(
    project: Project, name: str, *, kernel: str = "6.1", version: str = "1", cost: Cost = COST, **outcomes: str
) -> Path:
    cells = tuple(Cell(kernel, f"a.py::{test}", Outcome(outcome)) for test, outcome in outcomes.items())
    column = Column(kernel, f"{kernel}.0", version, "abc", {"trace_execve": cost})
    place = project.results / name
    place.mkdir(parents=True)
    wire.write(place / document.NAME, Document(VERSION, "", 1, 0, "", 1, (), True, "", (), (column,), cells, ()))
    return place


def test_a_first_baseline_is_written_and_then_nothing_differs(project: Project) -> None:
    results = run(project, "first", x="pass", y="skip")
    answer = baseline_view.update(project, results, [])
    assert answer.status == 0
    assert "1 kernels recorded in baselines/matrix/: review the difference" in answer.lines
    assert baseline_view.differences(project, results, []).lines == ("no difference",)


def test_undeclared_cells_propose_what_to_add(project: Project) -> None:
    """Below the table of the file that the project has."""
    results = run(project, "first", x="pass", y="undeclared", z="undeclared")
    whole = document.read(results)
    line = proposals.setting("x.bpf.o", "max-entries", "tasks", proposals.ENTRIES)
    cells = tuple(replace(cell, detail=proposals.text("no entries", line)) for cell in whole.cells)
    wire.write(results / document.NAME, replace(whole, cells=cells))
    asked = "2 cells are undeclared; for kernel-matrix.toml, with your loader's values:"
    proposed = ['[object."x.bpf.o"]', "max-entries.tasks = 1024  # as its loader does"]
    assert list(baseline_view.update(project, results, []).lines)[-4:-1] == [asked, *proposed]
    own = replace(project, table="pyproject.toml")
    assert '[tool.kernel-matrix.object."x.bpf.o"]' in baseline_view.update(own, results, []).lines


def test_a_deleted_baseline_gates(project: Project) -> None:
    results = run(project, "first", x="pass")
    baseline_view.update(project, results, [])
    (project.matrix_baselines / "6.1.json").unlink()
    answer = baseline_view.differences(project, results, [])
    assert answer.status == 1
    assert answer.lines[0].startswith("new: 6.1: - -> 1 cells (it has no baseline: `kernel-matrix baseline --update")


def test_each_kind_of_regression_is_named_and_gates(project: Project) -> None:
    baseline_view.update(project, run(project, "first", lost="pass", worse="pass", skipped="pass"), [])
    second = run(project, "second", version="2", cost=replace(COST, instructions=2000), worse="fail", skipped="skip")
    answer = baseline_view.differences(project, second, ["6.1"])
    assert answer.status == 1
    note = "(the kernel has drifted: 1 -> 2)"
    assert answer.lines == (
        f"regression: 6.1 a.py::worse: pass -> fail {note}",
        f"now skipped: 6.1 a.py::skipped: pass -> skip {note}",
        f"gone: 6.1 a.py::lost: pass -> - {note}",
        f"cost grew: 6.1 trace_execve: instructions 1000 -> instructions 2000 {note}",
        "kernel drifted: 6.1: 6.1.0 1 abc -> 6.1.0 2 abc",
        "1 regression, 1 now skipped, 1 gone, 1 cost grew, 1 kernel drifted",
    )
    assert baseline_view.differences(project, second, ["5.10"]).lines == ("no difference",)


def test_red_is_not_recorded(project: Project) -> None:
    baseline_view.update(project, run(project, "first", x="pass"), [])
    answer = baseline_view.update(project, run(project, "second", x="fail", y="crash", z="pass"), [])
    assert answer.status == 1
    assert "not recorded: 6.1 a.py::y: crash, and red is never expected" in answer.lines
    tests = baseline.read(project.matrix_baselines)["6.1"].tests
    assert tests == {"a.py::x": Outcome.PASS, "a.py::z": Outcome.PASS}


@pytest.mark.parametrize("status", [2, 3])
def test_a_run_without_a_verdict_is_not_recorded(project: Project, status: int) -> None:
    baseline_view.update(project, run(project, "first", x="pass"), [])
    second = run(project, "second", y="pass")
    wire.write(second / document.NAME, replace(document.read(second), exit_status=status))
    with pytest.raises(HarnessError, match=rf"second: the run ended with status {status}: "):
        baseline_view.update(project, second, [])
    assert set(baseline.read(project.matrix_baselines)["6.1"].tests) == {"a.py::x"}


def test_a_kernel_without_an_image_is_no_obstacle_for_others(project: Project) -> None:
    second = run(project, "second", y="pass")
    read = document.read(second)
    lacking = replace(read.cells[0], kernel="7.1", test=IMAGE, outcome=Outcome.ERROR)
    wire.write(second / document.NAME, replace(read, exit_status=3, cells=(*read.cells, lacking)))
    answer = baseline_view.update(project, second, [])
    assert set(baseline.read(project.matrix_baselines)) == {"6.1"}
    assert answer.status == 0


def test_a_kernel_that_did_not_boot_keeps_its_baseline(project: Project) -> None:
    baseline_view.update(project, run(project, "first", x="pass"), [])
    before = (project.matrix_baselines / "6.1.json").read_bytes()
    answer = baseline_view.update(project, run(project, "second", version="2", boot="crash"), [])
    assert answer.status == 1
    assert answer.lines[-2:] == (
        "not recorded: 6.1: nothing of it is green",
        "0 kernels recorded in baselines/matrix/: review the difference",
    )
    assert (project.matrix_baselines / "6.1.json").read_bytes() == before


def test_a_part_of_a_run_says_nothing_of_the_others(project: Project) -> None:
    baseline_view.update(project, run(project, "first", x="pass", y="pass"), [])
    results = run(project, "second", x="skip")
    wire.write(results / document.NAME, replace(document.read(results), shard="1/2"))
    assert baseline_view.differences(project, results, []).lines[-1] == "1 now skipped"
    baseline_view.update(project, results, [])
    tests = baseline.read(project.matrix_baselines)["6.1"].tests
    assert tests == {"a.py::x": Outcome.SKIP, "a.py::y": Outcome.PASS}


def test_kernels_that_were_not_run_keep_their_baseline(project: Project) -> None:
    results = run(project, "first", x="pass")
    baseline_view.update(project, results, [])
    with pytest.raises(HarnessError, match=r"no results of 5\.10"):
        baseline_view.update(project, results, ["5.10"])
    assert set(baseline.read(project.matrix_baselines)) == {"6.1"}


def test_two_result_sets_and_two_kernels_are_compared(project: Project) -> None:
    first = run(project, "first", x="pass", y="pass")
    other = run(project, "other", kernel="6.12", x="pass", y="refused")
    answer = baseline_view.compare(project, str(first), f"{other}:6.12")
    assert answer.status == 1
    assert answer.lines[0] == "changed: 6.1 -> 6.12 a.py::y: pass -> refused"
    baseline_view.update(project, first, [])
    assert baseline_view.compare(project, "baseline", str(first)).lines == ("no difference",)


def test_result_sets_without_a_common_kernel_do_not_compare(project: Project) -> None:
    first, other = run(project, "first", x="pass"), run(project, "other", kernel="6.12", x="pass")
    two = document.read(other)
    wire.write(other / document.NAME, replace(two, columns=(*two.columns, Column("7.3", "", "", "", {}))))
    with pytest.raises(ManifestError, match="have no kernel in common; compare two with FOLDER:KERNEL"):
        baseline_view.compare(project, str(first), str(other))


@pytest.mark.parametrize(
    ("name", "line"), [("first:7.3", r"has no kernel '7.3' \(it has: 6.1\)"), ("nowhere", "nowhere: No such file")]
)
def test_what_is_not_there_is_one_line(project: Project, name: str, line: str) -> None:
    first = run(project, "first", x="pass")
    with pytest.raises(HarnessError, match=line) as error:
        baseline_view.compare(project, str(first.parent / name), str(first))
    assert "\n" not in str(error.value)
