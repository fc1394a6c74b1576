"""A kernel panic while pytest collects: no test can be blamed, and every replacement dies the same way."""

from __future__ import annotations

from pathlib import Path

Path("/proc/sysrq-trigger").write_text("c")


def test_never_runs() -> None:
    """Is not even collected."""
