"""A test that leaves something in the kernel, and one that would meet it."""

from __future__ import annotations

import subprocess
from pathlib import Path

MODULE = Path("/sys/module/dummy")


def test_leaks() -> None:
    """Loads a module that was not there."""
    assert not MODULE.exists()
    subprocess.run(["modprobe", "dummy"], check=True)
    assert MODULE.exists()


def test_is_not_met_by_it() -> None:
    """Passes in a guest of its own."""
    assert not MODULE.exists()
