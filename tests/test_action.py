"""The action's steps, with commands in place of nox and the harness that note what they are told."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ACTION = ROOT / ".github" / "actions" / "kernel-matrix"
STUB = """#!/usr/bin/env python3
import json, os, pathlib, sys
here = pathlib.Path(__file__).resolve().parents[3]
with (here / "calls").open("a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
if "cache-key" in sys.argv:
    print("root=1")
if "counts" in sys.argv:
    print("green=3\\nred=1")
if "--session" in sys.argv and os.environ.get("REPORTS"):
    run = here / "results" / "run"
    run.mkdir(parents=True, exist_ok=True)
    for name in ("matrix.json", "matrix.md"):
        (run / name).write_text("the matrix\\n")
    (here / "results" / "latest").symlink_to("run")
sys.exit(0 if "counts" in sys.argv else int(os.environ.get("EXITS", "0")))
"""


@dataclass
class Repository:
    """This one as the runner has it, and another one that uses the action."""

    root: Path
    workspace: Path

    def step(self, name: str, **inputs: str) -> subprocess.CompletedProcess[str]:
        """Run a step of the action with these inputs."""
        files = {name: str(self.root / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        defaults = {"KERNELS": "core", "OBJECTS": "", "COMMAND": "", "CARRY": "", "SHARD": ""}
        command = [str(self.root / ".github/actions/kernel-matrix/run"), name]
        environment = {"PATH": "/usr/bin:/bin", **files, **defaults, **inputs}
        return subprocess.run(command, cwd=self.workspace, env=environment, capture_output=True, text=True, check=False)

    def arguments(self) -> list[str]:
        """What nox was told, without what is always the same."""
        calls = [json.loads(line) for line in (self.root / "calls").read_text().splitlines()]
        sessions = [call for call in calls if "--session" in call]
        always = ["-m", "nox", "--noxfile", str(self.root / "noxfile.py"), "--session"]
        assert [call[: len(always)] for call in sessions] == [always]
        return list(sessions[0][len(always) :])

    def outputs(self) -> dict[str, str]:
        """What the step left for other steps."""
        lines = (self.root / "GITHUB_OUTPUT").read_text().splitlines()
        return dict(line.partition("=")[::2] for line in lines)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    root, workspace = tmp_path / "action", tmp_path / "workspace"
    (root / ".github/actions").mkdir(parents=True)
    shutil.copytree(ACTION, root / ".github/actions/kernel-matrix")
    for name in ("ci", "harness"):
        python = root / ".nox" / name / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(STUB)
        python.chmod(0o755)
    for name in ("build/a.bpf.o", "build/sub dir/b.bpf.o", "build/c.o", "d.o"):
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).touch()
    return Repository(root, workspace)


@pytest.mark.parametrize(
    ("objects", "names"),
    [
        ("build", ["build/a.bpf.o", "build/sub dir/b.bpf.o"]),
        ("build/*.o d.o", ["build/a.bpf.o", "build/c.o", "d.o"]),
        ("no.o", ["no.o"]),
    ],
)
def test_objects_are_files_folders_and_patterns(repository: Repository, objects: str, names: list[str]) -> None:
    assert repository.step("matrix", OBJECTS=objects, KERNELS="5.10 6.1").returncode == 0
    paths = [str(repository.workspace / name) for name in names]
    assert repository.arguments() == ["gate", "--", "--kernel", "5.10", "--kernel", "6.1", *paths]


def test_a_command_is_one_word_for_the_guests_shell(repository: Repository) -> None:
    command = "cd build && ./test --all '*'"
    repository.step("matrix", COMMAND=command, CARRY="build")
    carried = ["--carry", str(repository.workspace / "build")]
    assert repository.arguments() == ["run", "--", "--kernel", "core", *carried, "--", "sh", "-c", command]


def test_without_objects_and_command_the_suites_run(repository: Repository) -> None:
    repository.step("matrix", SHARD="1/2")
    assert repository.arguments() == [
        *("kernel-matrix", "--", "--kernel", "core"),
        *("--require-loader", "aya", "--require-loader", "cilium", "--require-loader", "bcc", "--shard", "1/2"),
    ]


@pytest.mark.parametrize(
    ("inputs", "line"),
    [
        ({"OBJECTS": "d.o", "COMMAND": "true"}, "objects or command, not both"),
        ({"OBJECTS": "no/*.o"}, "no object file is called no/*.o"),
    ],
)
def test_inputs_that_contradict_or_name_nothing_are_status_4(
    repository: Repository, inputs: dict[str, str], line: str
) -> None:
    done = repository.step("matrix", **inputs)
    assert done.returncode == 0
    assert done.stdout == f"::error::kernel-matrix: {line}\n"
    assert repository.outputs() == {"status": "4", "report": ""}


def test_a_step_that_fails_in_the_middle_runs_nothing_behind_it(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "realpath").write_text("#!/bin/sh\nexit 5\n")
    (tmp_path / "realpath").chmod(0o755)
    assert repository.step("matrix", OBJECTS="d.o", PATH=f"{tmp_path}:/usr/bin:/bin").returncode == 0
    assert repository.outputs()["status"] == "5"
    assert not (repository.root / "calls").exists()


@pytest.mark.parametrize("status", ["0", "1", "3"])
def test_a_run_leaves_status_report_and_counts(repository: Repository, status: str) -> None:
    # of an earlier use of the action in the same job
    (repository.root / "results").mkdir()
    (repository.root / "results" / "latest").symlink_to("earlier")
    assert repository.step("matrix", OBJECTS="d.o", EXITS=status, REPORTS="1").returncode == 0
    report = str(repository.root / "results" / "run")
    expected = {"status": status, "report": report, "green": "3", "red": "1"}
    assert repository.outputs() == expected


def test_a_run_without_a_report_shows_none_of_an_earlier_one(repository: Repository) -> None:
    repository.step("matrix", REPORTS="1")
    (repository.root / "GITHUB_OUTPUT").unlink()
    repository.step("matrix", EXITS="3")
    assert repository.outputs() == {"status": "3", "report": ""}


@pytest.mark.parametrize(
    ("fail_on", "status", "ends"),
    [
        *[("red", status, int(status)) for status in "01234"],
        *[("infrastructure", status, ends) for status, ends in zip("01234", (0, 0, 2, 3, 4), strict=True)],
        ("red", "", 3),
        ("infrastructure", "", 3),
        ("never", "0", 4),
    ],
)
def test_the_verdict(repository: Repository, fail_on: str, status: str, ends: int) -> None:
    report = repository.root / "report"
    report.mkdir()
    (report / "matrix.md").write_text("# Kernel matrix\n")
    done = repository.step("verdict", FAIL_ON=fail_on, STATUS=status, REPORT=str(report))
    assert done.returncode == ends
    # who merges has the summary
    assert (repository.root / "GITHUB_STEP_SUMMARY").exists() == (fail_on == "red")


def test_keys_are_outputs(repository: Repository) -> None:
    assert repository.step("keys", KERNELS="6.1 full").returncode == 0
    assert repository.outputs() == {"root": "1"}
    assert json.loads((repository.root / "calls").read_text()) == [
        *("-m", "kernel_matrix", "cache-key", "--kernel", "6.1", "--kernel", "full")
    ]
    assert repository.step("keys", EXITS="4").returncode == 4


def test_an_unknown_step_is_said(repository: Repository) -> None:
    assert repository.step("dance").returncode == 4


def test_every_input_and_output_is_documented_and_used() -> None:
    text = (ACTION / "action.yml").read_text()
    readme = (ACTION / "README.md").read_text()
    inputs, outputs = text.partition("\noutputs:\n")[0], text.partition("\noutputs:\n")[2].partition("\nruns:\n")[0]
    names = re.findall(r"^  ([\w-]+):$", inputs, re.MULTILINE)
    assert names == ["kernels", "objects", "command", "carry", "shard", "fail-on", "cache"]
    for name in names:
        assert f"inputs.{name} " in text
        assert f"\n| `{name}` |" in readme
    for name in re.findall(r"^  ([\w-]+):$", outputs, re.MULTILINE):
        assert f"`{name}`" in readme.partition("## Outputs")[2].partition("## Caches")[0]
