"""Two processes on one processor, of which one preempts the other."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager

from kernel_matrix.guest.system.execs import forked
from kernel_matrix.guest.system.privilege import ChildError


@contextmanager
def urgent() -> Generator[None]:
    """Run this thread on one processor, before all that has no real-time priority, such as `beside`."""
    processors, policy, parameters = os.sched_getaffinity(0), os.sched_getscheduler(0), os.sched_getparam(0)
    os.sched_setaffinity(0, {max(processors)})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)
        os.sched_setaffinity(0, processors)


@contextmanager
def beside(action: Callable[[], object]) -> Generator[None]:
    """Run the action in a process without priority, on this thread's processors; kill it at the end.

    Raises ChildError when it has failed before.
    """

    def act() -> None:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        action()

    pid = forked(act)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status > 0:
        raise ChildError(f"a process beside this one has failed: exit status {status}", status)
