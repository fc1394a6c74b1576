"""A command whose output nobody reads any more, as with `| head`, ends quietly and with a Unix tool's status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.projects import HERE

#: as a shell has it for a tool that SIGPIPE has killed
STATUS = 128 + signal.SIGPIPE


@pytest.mark.parametrize(
    ("unbuffered", "command"),
    [
        ("", ["kernels"]),
        ("1", ["kernels"]),
        # argparse itself takes an error at once for success
        ("", ["merge", "--help"]),
        ("", ["schema"]),
        ("1", ["compare", "baseline:6.1", "baseline:6.12"]),
        ("1", ["capabilities", "--kernel", "6.1"]),
        ("", ["matrix", "--help"]),
        ("1", ["matrix", "--help"]),
        ("1", ["matrix", "--collect-only", "-p", "no:cacheprovider", "tests/test_text.py"]),
    ],
)
def test_a_closed_output_ends_a_command_quietly(unbuffered: str, command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "kernel_matrix", *command],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            cwd=HERE.root,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (STATUS, "")
