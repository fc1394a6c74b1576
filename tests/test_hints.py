"""How messages name a command: as the user has typed it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kernel_matrix.shared import hints


@pytest.mark.parametrize(
    ("name", "words", "own", "by_nox"),
    [
        ("shell", "6.1", "kernel-matrix shell 6.1", "nox -s shell -- 6.1"),
        ("kernels", "", "kernel-matrix kernels", "nox -s kernels"),
        ("matrix", "a.py", "kernel-matrix matrix a.py", "nox -s kernel-matrix -- a.py"),
    ],
)
def test_a_command_is_named_as_it_is_typed(
    name: str, words: str, own: str, by_nox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hints.command(name, words) == own
    monkeypatch.setenv(hints.NOX_VARIABLE, "1")
    assert hints.command(name, words) == by_nox


@pytest.mark.parametrize(
    "name", ["baseline", "bootstrap", "capabilities", "kernels", "matrix", "run", "shell", "workflow"]
)
def test_every_command_that_a_message_names_exists(name: str) -> None:
    command = [sys.executable, "-m", "kernel_matrix", name, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: " in done.stdout
