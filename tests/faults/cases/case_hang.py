"""A test that never ends."""

from __future__ import annotations

import signal

from kernel_matrix.guest.pytest.marks import timeout


def test_before() -> None:
    """Passes."""


@timeout(0)
def test_hang() -> None:
    """Waits for ever, and has no limit of its own."""
    signal.pause()


def test_after() -> None:
    """Passes, on the guest that replaces the hung one."""
