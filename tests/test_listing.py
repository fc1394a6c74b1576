"""``--collect-only``: what the guests would run, collected on the host; nothing is fetched or booted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TABLE = """
kernels = ["6.1", "6.12"]
tests = ["tests"]
loaders = ["libbpf"]
loaders-on-request = ["bcc"]
"""
TESTS = """
import pytest

@pytest.mark.requires("tcx")
def test_plain(): ...

@pytest.mark.parametrize("size", [1, 2])
def test_sizes(size): ...

def test_loading(loader): ...
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "kernel-matrix.toml").write_text(TABLE)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(TESTS)
    return tmp_path


def listed(project: Path, *arguments: str) -> list[str]:
    command = (sys.executable, "-m", "kernel_matrix", "matrix", "--collect-only", "-q", *arguments)
    environment = {**os.environ, "KERNEL_MATRIX_CACHE": str(project / "cache")}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (project / "cache").exists()
    assert not (project / "results").exists()
    return [line.partition("::")[2] for line in done.stdout.splitlines() if "::" in line]


def test_each_kernel_has_its_tests(project: Path) -> None:
    assert sorted(listed(project)) == [
        "test_loading[6.1-libbpf]",
        "test_loading[6.12-libbpf]",
        "test_plain[6.12]",
        "test_plain[6.1]",
        "test_sizes[6.1-1]",
        "test_sizes[6.1-2]",
        "test_sizes[6.12-1]",
        "test_sizes[6.12-2]",
    ]


def test_the_command_line_decides(project: Path) -> None:
    assert listed(project, "--kernel", "7.3", "--loader", "bcc", "-k", "loading") == ["test_loading[7.3-bcc]"]
    assert listed(project, "tests/test_it.py::test_plain[6.1]") == ["test_plain[6.1]"]


def test_without_pytests_cache(project: Path) -> None:
    """Its options do not exist then."""
    assert listed(project, "-p", "no:cacheprovider", "--kernel", "6.1", "-k", "plain") == ["test_plain[6.1]"]


def test_an_unknown_kernel_is_one_line(project: Path) -> None:
    command = (sys.executable, "-m", "kernel_matrix", "matrix", "--collect-only", "--kernel", "9.9")
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "unknown kernel '9.9'" in done.stdout + done.stderr
