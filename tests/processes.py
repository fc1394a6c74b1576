"""Checks of processes that must have ended."""

from __future__ import annotations

import os
import select
import time


def gone(group: int, seconds: float = 10) -> bool:
    """Wait until a process group has ended; return whether it has."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        select.select([], [], [], 0.05)
    return False
