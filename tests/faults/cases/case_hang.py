"""A test that never ends."""

from __future__ import annotations

import signal


def test_before() -> None:
    """Passes."""


def test_hang() -> None:
    """Waits for ever."""
    signal.pause()


def test_after() -> None:
    """Passes, on the guest that replaces the hung one."""
