"""A kernel panic between two tests that pass."""

from __future__ import annotations

from pathlib import Path


def test_before() -> None:
    """Passes."""


def test_panic() -> None:
    """Panics the kernel."""
    Path("/proc/sysrq-trigger").write_text("c")


def test_after() -> None:
    """Passes, on the guest that replaces the dead one."""
