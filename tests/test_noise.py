"""What a run prints is for its reader: nothing of the tools that it is made with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from kernel_matrix.relay import machine

ROOT = Path(__file__).parents[1]
#: what virtme-ng does before every start of QEMU, with --verbose
DETECT = "import sys; from virtme.commands import run; print(run.detect_disk_format(sys.argv[1], verbose=True))"


def test_nox_says_nothing_of_a_tool_that_is_not_used(tmp_path: Path) -> None:
    """uv is found neither in PATH nor in a package of that name."""
    path = f"{tmp_path}:/usr/bin:/bin"
    command = [sys.executable, "-m", "nox", "--noxfile", str(ROOT / "noxfile.py"), "-s", "bootstrap", "--", "--help"]
    environment = {**os.environ, "PATH": path, "UV": str(tmp_path / "uv")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("usage: nox -s bootstrap -- [--dry-run] [--with GROUP]...\n")
    assert done.stderr.splitlines() == [
        "nox > Running session bootstrap",
        "nox > Session bootstrap was successful.",
    ]


def test_virtme_ng_knows_the_format_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "root.erofs").write_bytes(bytes(4096))
    environment = {**os.environ, "PATH": machine.search_path(Path(sys.executable).parent)}
    command = [sys.executable, "-c", DETECT, str(tmp_path / "root.erofs")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("raw\n", "")
