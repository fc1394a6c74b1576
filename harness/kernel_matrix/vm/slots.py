"""How many guests run at once: one lock file per guest, freed by the kernel when its holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

#: what a guest takes of the machine beyond its own memory (QEMU's translation cache and buffers)
_OVERHEAD_MIB = 256


def guests_at_once(*, cores: int, emulated: bool, free_mib: int, memory_mib: int) -> int:
    """Return how many guests of that memory fit: what keeps the cores busy and the free memory holds, at least one.

    An emulated guest is one thread, and waits now and then (for grace periods of RCU): three more fill those gaps.
    """
    return max(1, min(cores + 3 * emulated, free_mib // (memory_mib + _OVERHEAD_MIB)))


def free_memory_mib(meminfo: str) -> int:
    """Read ``MemAvailable`` (in MiB) from the text of /proc/meminfo."""
    for line in meminfo.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    raise ValueError("no MemAvailable in meminfo")


def make(folder: Path, count: int) -> tuple[Path, ...]:
    """Make ``count`` slots."""
    slots = tuple(folder / f"slot-{number}" for number in range(count))
    for slot in slots:
        slot.touch()
    return slots


def try_take(slots: Sequence[Path]) -> int | None:
    """Take a free slot and return the descriptor that holds it (close it to free it); None when all are taken."""
    for slot in slots:
        descriptor = os.open(slot, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return descriptor
    return None
