"""Show the host that a guest works on something long in which no test starts or ends: it is silent otherwise."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kernel_matrix.guest.system.deadline import declared
from kernel_matrix.shared.channel.frames import BEAT

_beats: list[Callable[[bytes], None]] = []


def beat_through(send: Callable[[bytes], None]) -> None:
    """Use this function to send a heartbeat to the host."""
    _beats[:] = [send]


@contextmanager
def working(seconds: float) -> Iterator[None]:
    """Send heartbeats during the block, and pause the test's limit.

    After so many seconds there are no more: then a guest that hangs in the block is silent, and the host ends it.
    """
    over = threading.Event()
    thread = threading.Thread(target=_live, args=(over, time.monotonic() + seconds), name="alive", daemon=True)
    with declared():
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _live(over: threading.Event, until: float) -> None:
    while not over.wait(BEAT) and time.monotonic() < until:
        for beat in _beats:
            beat(b"")
