"""Tests that hang in ways that their limit ends, and in ways that it does not."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

from kernel_matrix.guest.pytest.marks import timeout

_HOG = """
import os
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))
while True: pass
"""


def test_before() -> None:
    """Passes."""


@timeout(0.5)
def test_sleeps() -> None:
    """Is ended by its limit."""
    signal.pause()


def test_between() -> None:
    """Passes, in the same guest."""


@timeout(0)
def test_is_deaf_in_python() -> None:
    """Has no limit."""
    signal.pause()


@timeout(0.5)
def test_is_deaf_in_c() -> None:
    """Locks what it has locked: pthread_mutex_lock() goes on waiting after a signal, and no handler of Python runs."""
    mutex = ctypes.create_string_buffer(64)
    libc = ctypes.CDLL(None)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)


@timeout(0)
def test_starves_the_guest() -> None:
    """Nothing of the guest runs any more but interrupts."""
    Path("/proc/sys/kernel/sched_rt_runtime_us").write_text("-1")
    hogs = [subprocess.Popen([sys.executable, "-c", _HOG]) for _ in range(os.cpu_count() or 1)]
    hogs[0].wait()


def test_after() -> None:
    """Passes."""
