"""Wait for conditions, never for a fixed time; limits scale with the guest's measured speed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from kernel_matrix.shared.project import LIMITS

_T = TypeVar("_T")
#: the environment variable that says how much slower than the reference this guest is
SPEED = "HARNESS_SPEED"
#: seconds between two checks: shorter than any awaited event takes under emulation
_PAUSE = 0.0005


def limit(seconds: float) -> float:
    """Scale seconds on the reference machine to a limit for this guest (HARNESS_SPEED: how much slower it is)."""
    return seconds * max(1.0, float(os.environ.get(SPEED, "1")))


def read_limits(path: Path = LIMITS) -> None:
    """Set the environment variables that follow from the speed of this guest, as it was measured when it woke."""
    # a guest that was not woken by a relay (`bench`'s plain way) has them in its environment
    with contextlib.suppress(FileNotFoundError):
        os.environ.update(json.loads(path.read_text()))


@contextlib.contextmanager
def declared() -> Iterator[None]:
    """Pause the test's limit (`kernel_matrix.guest.pytest.limits`) during a wait with its own deadline."""
    left, again = signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, again)


@declared()
def wait_until(condition: Callable[[], _T | None], what: str, seconds: float = 5.0) -> _T:
    """Wait for and return the condition's first true value; raises TimeoutError, which names ``what``.

    ``seconds`` are those of the reference machine.
    """
    end = time.monotonic() + limit(seconds)
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {limit(seconds):.0f} s; last seen: {value!r}")
        # not sched_yield(): one thread emulates all processors in turn, and a processor that never idles uses its whole
        # turn, a tenth of a second (QEMU, TCG_KICK_PERIOD), while the awaited event may need another processor
        select.select([], [], [], _PAUSE)
    return value
