"""The engine as others have it: a wheel, in its own environment, with a project in a temporary folder (with VMs)."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: what an installed engine must not need: the environment of this repository, and this repository
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "KERNEL_MATRIX_NOX"))}
#: the matrix's own options, taken by somebody else
CONFTEST = """
def pytest_addoption(parser):
    for name in ("--kernel", "--results", "--repeat", "--shard", "--command"):
        parser.addoption(name)
"""
TEST = """
import os


def test_the_kernel_is_the_one_that_was_asked_for(kernel):
    assert os.uname().release.startswith("6.1.")
"""


def run(*command: str | Path, cwd: Path, status: int = 0) -> str:
    done = subprocess.run(command, cwd=cwd, env=CLEAN, capture_output=True, text=True, check=False)
    assert done.returncode == status, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, install it with what it declares, and return the environment's programs."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "environment", with_pip=True)
    bin_folder = folder / "environment" / "bin"
    run(bin_folder / "python", *pip[1:], "install", wheel, cwd=folder)
    return bin_folder


def test_a_project_of_one_test_runs_on_a_kernel(programs: Path, tmp_path: Path) -> None:
    """Without a key in its table, and without a baseline."""
    (tmp_path / "kernel-matrix.toml").write_text("")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_one.py").write_text(TEST)
    output = run(programs / "kernel-matrix", "matrix", "--kernel", "6.1", cwd=tmp_path)
    assert "1 passed" in output.splitlines()[-1]
    assert "against the baseline: 1 new" in output
    test = "tests/test_one.py::test_the_kernel_is_the_one_that_was_asked_for"
    run(programs / "kernel-matrix", "baseline", "--update", "--results", "results/latest", cwd=tmp_path)
    again = run(programs / "kernel-matrix", "rerun", f"{test}[6.1]", cwd=tmp_path)
    assert "1 passed" in again.splitlines()[-1]
    assert "against the baseline" not in again
    assert run(programs / "kernel-matrix", "shell", "6.1", "uname", "-r", cwd=tmp_path).startswith("6.1.")


@pytest.mark.parametrize("options", [[], ["-v"], ["-n", "2"], ["--collect-only"]])
def test_a_foreign_run_is_the_same_with_it(programs: Path, tmp_path: Path, options: list[str]) -> None:
    """To the byte, but for the seconds it took; and the names of the matrix's options are the project's own."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_x.py").write_text("def test_x():\n    pass\n")
    without = run(
        programs / "pytest", "-p", "no:kernel_matrix.plugin", "-p", "no:cacheprovider", *options, cwd=tmp_path
    )
    with_it = run(programs / "pytest", "-p", "no:cacheprovider", *options, cwd=tmp_path)
    assert [line.rpartition(" in ")[0] or line for line in with_it.splitlines()] == [
        line.rpartition(" in ")[0] or line for line in without.splitlines()
    ]
