"""Mutants that panic their guest, hang it, are refused, or survive: each costs itself alone (with VMs)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).with_name("mutants")
TEST = "suite/test_verdict.py::test_passes"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the project."""
    folder = tmp_path / "project"
    shutil.copytree(PROJECT, folder)
    return folder


def run(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kernel_matrix", "mutants", "--kernel", "6.1", *words]
    environment = {name: value for name, value in os.environ.items() if name != "KERNEL_MATRIX_NOX"}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def test_each_mutant_costs_itself_alone(project: Path) -> None:
    done = run(project, "--mistakes", "--update")
    assert done.returncode == 1, done.stdout + done.stderr
    written = json.loads((project / "baselines" / "mutants.json").read_text())
    assert written == {
        "6.1": {
            "verdict": {
                "declared": "equivalent",
                "hangs": f"killed: {TEST}",
                "noticed": f"killed: {TEST}",
                "panics": f"killed: guest lost in {TEST}",
                "refused": "refused",
                "unnoticed": "survived",
            }
        }
    }
    assert "6.1: verdict/unnoticed: survived\n  verdict.bpf.c:10\n" in done.stdout
    assert "6.1: verdict/declared: survived" not in done.stdout


def test_a_suite_that_is_red_says_nothing_about_mutants(project: Path) -> None:
    source = project / "bpf" / "verdict.bpf.c"
    source.write_text(source.read_text().replace("> 1000", "> 10"))
    for name in ("verdict.toml", "equivalent.toml"):
        path = project / "mistakes" / name
        path.write_text(path.read_text().replace("> 1000", "> 10"))
    done = run(project, "--mistakes")
    assert done.returncode == 3
    assert "6.1: verdict: red without a mutant: " in done.stderr
    assert f"{TEST.replace('passes', 'passes[6.1]')}: assert 1 == 2" in done.stderr
    assert done.stderr.count("\n") == 1
