"""A kernel panic in the last test: there is nothing left for a replacement."""

from __future__ import annotations

from pathlib import Path


def test_before() -> None:
    """Passes."""


def test_panic() -> None:
    """Panics the kernel."""
    Path("/proc/sysrq-trigger").write_text("c")
