"""Bad input to ``python -m kernel_matrix diagnose``: one line and exit status 4."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("content", "arguments", "line"),
    [
        (None, [], "No such file or directory"),
        (b"text\n", [], "not an object file"),
        (b"", [], "not an object file"),
        (b"\x7fELF", ["--kernel", "0.0"], "unknown kernel '0.0'"),
    ],
)
def test_bad_input_is_one_line_and_a_status(
    tmp_path: Path, content: bytes | None, arguments: list[str], line: str
) -> None:
    path = tmp_path / "x.bpf.o"
    if content is not None:
        path.write_bytes(content)
    command = [sys.executable, "-m", "kernel_matrix", "diagnose", str(path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (4, "")
    assert line in done.stderr
    assert done.stderr.count("\n") == 1


def test_no_object_is_bad_usage() -> None:
    command = [sys.executable, "-m", "kernel_matrix", "diagnose"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 4
    assert "OBJECT" in done.stderr
