"""What tests ask about processes that others have started and are to end."""

from __future__ import annotations

import os
import select
import time


def gone(group: int, seconds: float = 10) -> bool:
    """Wait for a process group to be gone; return whether it is."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        select.select([], [], [], 0.05)
    return False
