"""The jobs of a CI: one for each kernel or shard, under names that GitHub accepts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import msgspec
import pytest

from kernel_matrix.ci import command_line, jobs
from kernel_matrix.ci.jobs import Job
from kernel_matrix.config import manifest
from kernel_matrix.images.packages import lock
from kernel_matrix.images.packages.archive import Package
from kernel_matrix.results import document
from kernel_matrix.results.document import Document
from kernel_matrix.shared import wire
from kernel_matrix.shared.errors import HarnessError, ManifestError
from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from tests.projects import HERE

KNOWN = manifest.load(HERE.images)
#: kernels of the manifest that the lock has not
GONE = {kernel.name for kernel in KNOWN.kernels} - set(lock.read(KNOWN.folder / "kernels.lock.toml").kernels)


@pytest.mark.parametrize("name", ["core", "full"])
def test_a_group_is_a_job_for_each_of_its_locked_kernels(name: str) -> None:
    planned = jobs.plan(KNOWN, [name])
    kernels = [kernel.name for kernel in manifest.select(KNOWN, [name])]
    assert [job.kernel for job in planned] == [kernel for kernel in kernels if kernel not in GONE]
    assert all((job.name, job.shard) == (job.kernel, "1/1") for job in planned)
    assert jobs.plan(KNOWN, []) == jobs.plan(KNOWN, ["core"])


def test_a_kernel_of_no_archive_gets_a_job_only_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    locked = {kernel.name: (Package("x", "1", "", 1),) for kernel in KNOWN.kernels if kernel.name != "6.1"}
    monkeypatch.setattr(lock, "read", lambda _: lock.Lock(locked))
    assert jobs.left_out(KNOWN, ["full"]) == jobs.left_out(KNOWN, []) == ("6.1",)
    assert jobs.plan(KNOWN, ["6.1"]) == (Job("6.1", "6.1", "1/1"),)
    parser = argparse.ArgumentParser()
    command_line.add(parser.add_subparsers().add_parser)
    plan = parser.parse_args(["plan", "--kernel", "full"])
    assert plan.run(plan) == 0
    output = capsys.readouterr()
    assert '"6.1"' not in output.out
    locks = "`kernel-matrix kernels update` locks it once the archive has all of it"
    assert f"6.1: no job, not locked: {locks}\n" in output.err


def test_a_plan_without_a_job_tests_nothing_and_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "read", lambda _: lock.Lock())
    with pytest.raises(ManifestError, match=r"^core: no kernel of it is locked, so there is nothing to test$"):
        jobs.plan(KNOWN, [])


def test_a_kernel_of_the_users_own_needs_no_lock() -> None:
    kernel = manifest.Kernel(tier="core", provider="path", keys={"vmlinuz": "/x"}, name="mine")
    assert jobs.plan(msgspec.structs.replace(KNOWN, kernels=(kernel,)), []) == (Job("mine", "mine", "1/1"),)


def test_shards_are_jobs_that_together_are_the_kernel() -> None:
    assert jobs.plan(KNOWN, ["6.1"], 2) == (Job("6.1-1of2", "6.1", "1/2"), Job("6.1-2of2", "6.1", "2/2"))
    full = jobs.plan(KNOWN, ["full"], 4)
    assert len({job.name for job in full}) == len(full) == 4 * (len(KNOWN.kernels) - len(GONE))


def test_the_matrix_is_one_line_that_github_reads() -> None:
    text = jobs.matrix(jobs.plan(KNOWN, ["6.1", "5.10"]))
    assert "\n" not in text
    assert json.loads(text) == {
        "include": [
            {"name": "5.10", "kernel": "5.10", "shard": "1/1"},
            {"name": "6.1", "kernel": "6.1", "shard": "1/1"},
        ]
    }


@pytest.mark.parametrize(
    ("names", "shards", "line"),
    [
        (["core"], 0, r"^--shards 0: at least one job for each kernel is needed$"),
        (["6.2"], 1, r"^unknown kernel '6\.2' \(known: core, full, "),
        (["full"], 100, rf"^{100 * (len(KNOWN.kernels) - len(GONE))} jobs: GitHub takes 256 at most$"),
    ],
)
def test_a_plan_that_cannot_be_is_one_line(names: list[str], shards: int, line: str) -> None:
    with pytest.raises(ManifestError, match=line):
        jobs.plan(KNOWN, names, shards)


def test_a_kernel_whose_name_no_artifact_can_have_is_named() -> None:
    kernel = manifest.Kernel(tier="core", provider="path", keys={"vmlinuz": "/x"}, name="my: kernel")
    with pytest.raises(ManifestError, match=r"^kernel 'my: kernel': no name for a job"):
        jobs.plan(msgspec.structs.replace(KNOWN, kernels=(kernel,)), [])


def test_a_report_is_counted(tmp_path: Path) -> None:
    outcomes = [Outcome.PASS, Outcome.REFUSED, Outcome.FAIL, Outcome.NOTRUN, Outcome.SKIP]
    cells = tuple(Cell("6.1", f"test_{outcome}", outcome) for outcome in outcomes)
    report = Document(document.VERSION, "", 0.0, 1, "", 1, (), False, "", (), (), cells, ())
    wire.write(tmp_path / document.NAME, report)
    assert jobs.counts(tmp_path) == {"green": 3, "red": 2}
    with pytest.raises(HarnessError, match=r"none: No such file or directory$"):
        jobs.counts(tmp_path / "none")
