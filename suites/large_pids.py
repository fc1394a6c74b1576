"""Processes with numbers that take more than 16 bits, which a small machine does not reach by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PID_MAX = Path("/proc/sys/kernel/pid_max")
_LAST = Path("/proc/sys/kernel/ns_last_pid")
#: more than 16 bits, and another number in the lower ones
FIRST = 0x2_1234


@contextmanager
def large_pids() -> Iterator[None]:
    """Give the next processes numbers from FIRST on, up to the largest of 22 bits (proc(5), pid_max, ns_last_pid)."""
    most, last = _PID_MAX.read_text(), _LAST.read_text()
    _PID_MAX.write_text(str(1 << 22))
    try:
        _LAST.write_text(str(FIRST - 1))
        yield
    finally:
        _LAST.write_text(last)
        _PID_MAX.write_text(most)
