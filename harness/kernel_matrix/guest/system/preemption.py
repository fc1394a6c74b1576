"""Two processes on one processor, of which one preempts the other."""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager

from kernel_matrix.guest.system.privilege import ChildError

#: the exit status of a child whose action has raised an exception
_FAILED = 254


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
    with warnings.catch_warnings():
        # execnet has a thread of its own, whose locks the child does not take
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = _FAILED
        try:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            action()
            status = 0
        except BaseException:  # noqa: BLE001 - the child must end here whatever happens
            traceback.print_exc()
        finally:
            os._exit(status)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == _FAILED:
        raise ChildError("a process beside this one has failed", status)
