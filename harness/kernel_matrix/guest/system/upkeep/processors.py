"""The guest's processors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_PROCESSORS = Path("/sys/devices/system/cpu")


@contextmanager
def only_one() -> Iterator[None]:
    """Take all processors offline but the one that cannot be, and put them back.

    The kernel interrupts every other processor, and waits for it, whenever it patches its text, changes a mapping of
    its own or expedites a grace period: whenever a program is loaded, attached or detached. One thread emulates all
    processors, so each has to wait for its turn.
    """
    with ExitStack() as restore:
        # the first processor has no such file where it cannot be taken offline
        for online in sorted(_PROCESSORS.glob("cpu[1-9]*/online")):
            if online.read_text().strip() == "1":
                restore.callback(online.write_text, "1")
                online.write_text("0")
        yield
