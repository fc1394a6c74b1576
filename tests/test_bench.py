"""The tables of measurements, and the command they are measured against."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from kernel_matrix.commands.bench import bench, edit_loop, plain_run
from kernel_matrix.commands.bench.edit_loop import Loop, Split
from kernel_matrix.commands.bench.report import Report, Row, Start, Whole, markdown
from kernel_matrix.plan import preparation
from kernel_matrix.plan.preparation import Plan, PlannedGuest
from kernel_matrix.relay.job import Job
from kernel_matrix.report.run_folder import RunFacts, RunRecord
from kernel_matrix.shared import wire
from kernel_matrix.shared.channel.console import Phases
from kernel_matrix.shared.errors import HarnessError, ManifestError
from kernel_matrix.shared.project import Bench, Project
from kernel_matrix.vm.guests import GuestRecord
from tests.fake_guest import BOOT, JOB
from tests.projects import HERE, ROOT, below

PANIC = HERE.bench.panic
ROW = Row(
    "6.1",
    plain=(Start(20.0, 24.0), Start(28.0, 16.0), Start(22.0, 18.0)),
    booted=(Start(10.0, 12.0), Start(14.0, 8.0), Start(11.0, 9.0)),
    restored=(Start(0.5, 1.0), Start(0.5, 1.0), Start(0.7, 0.5)),
    fresh=(0.4, 0.6),
    panic=(),
    phases=(Phases(2.0, 0.2, 0.9, 12.0), Phases(1.0, 0.4, 0.9, 10.0)),
)


def test_the_tables_have_medians_spreads_and_pair_ratios() -> None:
    report = Report(
        "2 processors", 2, "emulated", "4 saved", (ROW,), (Whole(400.0, 50.0, 80.0, 900, ("6.1: passed",)),)
    )
    lines = markdown(report).splitlines()
    assert (
        "| 6.1 | 22.00 (20.00 to 28.00) | 18.00 (16.00 to 24.00) | 11.00 (10.00 to 14.00) | 9.00 (8.00 to 12.00)"
        " | 0.50 (0.50 to 0.70) | 1.00 (0.50 to 1.00) | 24.00 (16.00 to 36.00) | 0.50 (0.40 to 0.60) | - |"
    ) in lines
    assert "| 6.1 | 1.50 (1.00 to 2.00) | 0.30 (0.20 to 0.40) | 0.90 (0.90 to 0.90) | 11.00 (10.00 to 12.00) |" in lines
    assert "| 400 | 50 | 8.0 | 80 | 1.25 | 900 |" in lines
    assert lines[-1] == "- plain, 6.1: passed"
    assert wire.decode(wire.encode(report), Report) == report


def test_the_warm_run_is_the_first_that_saves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNEL_MATRIX_CACHE", str(tmp_path))
    saves = iter(["guests", "workers", None, "never"])
    seconds = count(1.0)
    record = RunRecord(RunFacts("emulated", 1, ()), 0.0, 0, 0, ())

    def matrix(*_: object, **__: object) -> bench._Run:
        if name := next(saves):
            (tmp_path / "snapshots" / name).mkdir(parents=True)
        return bench._Run(tmp_path, record, next(seconds), 0)

    monkeypatch.setattr(bench, "_matrix", matrix)
    assert bench._warm(tmp_path).seconds == 3.0


def test_a_cache_that_never_holds_all_is_no_warm_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNEL_MATRIX_CACHE", str(tmp_path))
    monkeypatch.setattr(bench, "_matrix", lambda *_, **__: tempfile.mkdtemp(dir=(tmp_path / "snapshots")))
    (tmp_path / "snapshots").mkdir()
    with pytest.raises(HarnessError, match="still being saved"):
        bench._warm(tmp_path)


#: what stands in for the matrix: it leaves a run with these cells, or none, and ends with a status
_FAKE_MATRIX = """
import sys
from pathlib import Path
from kernel_matrix.shared import wire
from kernel_matrix.results import document
from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from kernel_matrix.relay.job import Job
from kernel_matrix.report.run_folder import RunFacts, RunRecord
status, recorded, cells = {status}, {recorded}, {cells}
folder = Path(sys.argv[-1]) / {name!r}
if recorded is not None:
    folder.mkdir()
    results = tuple(Cell("6.1", f"{file}::{{test}}", Outcome(outcome)) for test, outcome in cells.items())
    wire.write(folder / "run.json", RunRecord(RunFacts("emulated", 1, ()), 0.0, recorded, len(cells), ()))
    wire.write(folder / "matrix.json", document.Document(1, "", 0, recorded, "", 1, (), True, "", (), (), results, ()))
    (folder.parent / "latest").unlink(missing_ok=True)
    (folder.parent / "latest").symlink_to(folder.name)
sys.exit(status)
"""


class FakeMatrix:
    """Stands in for ``python -m kernel_matrix matrix``, whose runs are below ``project``."""

    def __init__(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._project = project
        self._patch = monkeypatch
        self._count = 0
        (project / "results" / "bench").mkdir(parents=True)

    def __call__(self, status: int, recorded: int | None, cells: dict[str, str], panics: str = "") -> bench._Run:
        self._count += 1
        file = panics or "a.py"
        program = self._project / "program.py"
        program.write_text(
            _FAKE_MATRIX.format(status=status, recorded=recorded, cells=cells, name=f"run-{self._count}", file=file)
        )
        python = self._project / "python"
        folder = self._project / "results" / "bench"
        python.write_text(f"#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} {program} {folder}\n")
        python.chmod(0o755)
        with self._patch.context() as patch:
            patch.setattr(sys, "executable", str(python))
            return bench._matrix(self._project, *([] if panics else [file]), panics=panics)


@pytest.fixture
def run_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMatrix:
    return FakeMatrix(tmp_path, monkeypatch)


def test_the_time_of_a_green_run_is_a_figure(run_matrix: FakeMatrix) -> None:
    run = run_matrix(0, 0, {"a": "pass", "b": "skip", "c": "refused"})
    assert (run.record.exit_status, run.folder.name) == (0, "run-1")
    assert run.seconds > 0


@pytest.mark.parametrize(
    ("status", "recorded", "cells", "line"),
    [
        (1, 1, {"a": "pass", "b": "fail"}, r": status 1, 1 pass, 1 fail: its time is no figure; results in \S+/run-2$"),
        # all green, and changed against the baseline
        (1, 1, {"a": "pass"}, r": status 1, 1 pass: "),
        (2, 2, {"a": "pass"}, r": status 2, 1 pass: "),
        (3, 3, {"a": "lost"}, r": status 3, 1 lost: "),
        (0, 0, {}, r": status 0, no cells: "),
        # killed behind its last word
        (247, 0, {"a": "pass"}, r": status 247, but its results say 0; "),
        # nothing of this run is there, but something of the one before
        (4, None, {}, r"^no results of [^\n]+: status 4$"),
        (0, None, {}, r"^no results of [^\n]+: status 0$"),
    ],
)
def test_the_time_of_a_broken_run_is_none(
    run_matrix: FakeMatrix, status: int, recorded: int | None, cells: dict[str, str], line: str
) -> None:
    run_matrix(0, 0, {"a": "pass"})
    with pytest.raises(HarnessError, match=line):
        run_matrix(status, recorded, cells)


def test_a_panic_is_measured_where_nothing_else_happened(run_matrix: FakeMatrix) -> None:
    outcomes = {name: str(outcome) for name, outcome in bench._PANICKED.items()}
    assert run_matrix(1, 1, outcomes, PANIC).record.exit_status == 1
    for cells in (outcomes | {"test_after": "lost"}, outcomes | {"test_panic": "fail"}, {"test_panic": "crash"}):
        with pytest.raises(HarnessError, match="its time is no figure"):
            run_matrix(1, 1, cells, PANIC)


def measured(*guests: GuestRecord) -> bench._Run:
    return bench._Run(Path("/r"), RunRecord(RunFacts("emulated", 1, ()), 0.0, 0, 0, guests), 1.0, 0)


BOOTED = GuestRecord("6.1", "cold", "", 9.0, 10.0, 12.0)
RESTORED = GuestRecord("6.1", "restored", "", 0.2, 0.5, 1.0)


def test_a_start_is_that_of_one_guest_that_came_up_as_it_should() -> None:
    assert bench._start(measured(BOOTED), "cold") == Start(10.0, 12.0)
    assert bench._start(measured(RESTORED), "restored") == Start(0.5, 1.0)
    unsaved = replace(BOOTED, note="no snapshot: no space")
    for guests in ([unsaved], [], [RESTORED, RESTORED]):
        with pytest.raises(HarnessError, match="one guest was to be restored, there came: "):
            bench._start(measured(*guests), "restored")
    with pytest.raises(HarnessError, match=r"6\.1: no test started"):
        bench._start(measured(replace(RESTORED, first_test=None)), "restored")


def test_a_gap_lies_between_restored_guests() -> None:
    second = replace(RESTORED, gap=0.4)
    assert bench._gaps(measured(RESTORED, second, second)) == [0.4, 0.4]
    for guests in ([], [RESTORED], [RESTORED, RESTORED], [RESTORED, replace(second, how="cold")]):
        with pytest.raises(HarnessError, match="guests were to be restored one after another, there came: "):
            bench._gaps(measured(*guests))


@pytest.mark.parametrize(
    "line",
    ["===== 18 passed, 2 skipped, 1 xfailed in 3.21s =====", "18 passed, 3 deselected in 100.00s (0:01:40)"],
)
def test_a_plain_run_that_ended_green_has_a_summary(line: str) -> None:
    assert plain_run.green_summary("6.1", ["x", line, "[   9.0] reboot: Power down"]) == line.strip("= ")


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["harness: start a.py::test_x", "[    9.0] Kernel panic"], "pytest did not end"),
        (["==== 1 failed, 17 passed in 3.21s ===="], "1 failed, 17 passed in 3.21s"),
        (["17 passed, 1 error in 3.21s"], "17 passed, 1 error in 3.21s"),
    ],
)
def test_a_plain_run_that_is_broken_is_an_error(lines: list[str], why: str) -> None:
    with pytest.raises(HarnessError, match=rf"^kernel 6\.1: the plain way is broken: {why}; "):
        plain_run.green_summary("6.1", lines)


def test_memory_is_that_of_the_process_and_its_descendants() -> None:
    assert bench._anonymous_mib(os.getpid()) >= 1
    assert bench._anonymous_mib(-1) == 0


def test_the_plain_way_has_the_same_kernel_image_and_emulator() -> None:
    job = replace(JOB, boot=replace(BOOT, append=("lockdown=integrity",)))
    words = plain_run.command(job, Path("/s"))
    assert words[words.index("--append") + 1] == "lockdown=integrity"
    assert words[words.index("--root-disk") + 1] == "/r/root.erofs"
    assert words[words.index("--run") + 1] == "/k/boot/vmlinuz-6.1"
    assert "tcg,thread=single" in next(word for word in words if word.startswith("--qemu-opts="))
    plan = Plan((), Path("/f"), {}, frozenset({"tcx"}), {"6.1": frozenset()}, RunFacts("tcg", 1, ()), ())
    assert shlex.split(plain_run.script("6.1", plan, ["suites", "-k", "a b"]))[-3:] == ["suites", "-k", "a b"]


def test_a_kernel_without_its_image_ends_the_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan((), tmp_path, {"7.0": "it is not locked"}, frozenset(), {}, RunFacts("tcg", 1, ()), ())
    monkeypatch.setattr(preparation, "prepare", lambda *_, **__: plan)
    with pytest.raises(HarnessError, match=r"^7\.0: it is not locked$"):
        bench.run(below(tmp_path, bench=Bench("a.py", "x", "b.py")), ["full"], bench.Counts(1, 0, 0), print)


def test_what_is_measured_are_the_guests_of_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = tmp_path / "job.json"
    wire.write(job, JOB)
    guest = PlannedGuest("6.1", "6.1.0", frozenset(), job, tmp_path / "ending.json", loaders={"aya": "0.14.0"})
    plan = Plan((guest,), tmp_path, {}, frozenset(), {}, RunFacts("tcg", 1, ()), ())
    whole = Whole(400.0, 50.0, 80.0, 900, ("6.1: passed",))
    measured: list[Job] = []

    def row(_project: Project, job: Job, *_rest: object) -> Row:
        measured.append(job)
        return ROW

    def everything(_project: Project, jobs: Mapping[PlannedGuest, Job], *_rest: object) -> Whole:
        measured.extend(jobs.values())
        return whole

    monkeypatch.setattr(preparation, "prepare", lambda *_, **__: plan)
    monkeypatch.setattr(bench, "_row", row)
    monkeypatch.setattr(bench, "_whole", everything)
    page = bench.run(below(tmp_path, bench=Bench("a.py", "x", "b.py")), ["core"], bench.Counts(1, 1, 0), print)
    assert measured == [JOB, JOB]
    assert "| 6.1 |" in page.read_text()


def test_a_project_without_tests_to_time_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"^kernel-matrix\.toml: bench: no file, keyword and panic are named"):
        bench.run(below(tmp_path, bench=Bench("a.py", "x")), ["full"], bench.Counts(1, 0, 0), print)


def test_the_edit_loop_is_a_table_of_medians() -> None:
    first = Split(3.0, 0.4, 0.5, 0.1, 0.7, 0.2, 0.8, 0.1, 0.2, 1.1)
    splits = (first, replace(first, total=2.5), replace(first, total=4.0, tests=1.8))
    loop = Loop("6.1", splits, (first,))
    table = edit_loop.markdown([loop])
    assert (
        table[3]
        == "| kernel | | total | start | imports | plan | restore | collect | tests | end | report | host cpu |"
    )
    assert table[5:] == [
        "| 6.1 | unchanged | 3.00 (2.50 to 4.00) | 0.40 | 0.50 | 0.10 | 0.70 | 0.20 | 0.80 | 0.10 | 0.20 | 1.10 |",
        "| 6.1 | a line changed | 3.00 (3.00 to 3.00) | 0.40 | 0.50 | 0.10 | 0.70 | 0.20 | 0.80 | 0.10 | 0.20 | 1.10 |",
    ]


def test_a_file_of_the_users_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "test_edit_loop.py").write_text("mine")
    (tmp_path / "test_a.py").touch()
    project = below(tmp_path, bench=Bench("test_a.py", "", ""))
    with pytest.raises(HarnessError, match=r"^test_edit_loop\.py is in the way: "):
        edit_loop.measure(project, "6.1", 1)
    assert (tmp_path / "test_edit_loop.py").read_text() == "mine"


def test_a_run_that_is_red_is_no_figure_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test_a.py").touch()
    project = below(tmp_path, bench=Bench("test_a.py", "", ""))
    failed = subprocess.CompletedProcess([], 1, "FAILED test_a", "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(HarnessError, match=r"status 1: FAILED test_a$"):
        edit_loop.measure(project, "6.1", 1)
    assert [path.name for path in tmp_path.glob("*.py")] == ["test_a.py"]
