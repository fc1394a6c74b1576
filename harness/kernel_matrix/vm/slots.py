"""Limit the number of concurrent guests by lock files, which the kernel unlocks when their holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

#: memory of QEMU for a guest in addition to the guest's own (translation cache and buffers)
_OVERHEAD_MIB = 256


def guests_at_once(*, cores: int, emulated: bool, free_mib: int, memory_mib: int) -> int:
    """Return how many guests keep the cores busy and fit into the free memory, at least one.

    An emulated guest is one thread that sometimes waits (for RCU grace periods); three more guests use that time.
    """
    return max(1, min(cores + 3 * emulated, free_mib // (memory_mib + _OVERHEAD_MIB)))


def free_memory_mib(meminfo: str) -> int:
    """Read ``MemAvailable`` (in MiB) from the text of /proc/meminfo."""
    for line in meminfo.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    raise ValueError("no MemAvailable in meminfo")


def make(folder: Path, count: int) -> tuple[Path, ...]:
    """Create ``count`` slots."""
    slots = tuple(folder / f"slot-{number}" for number in range(count))
    for slot in slots:
        slot.touch()
    return slots


def try_take(slots: Sequence[Path]) -> int | None:
    """Lock a free slot and return its descriptor (close it to unlock the slot); None when all are in use."""
    for slot in slots:
        descriptor = os.open(slot, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return descriptor
    return None
