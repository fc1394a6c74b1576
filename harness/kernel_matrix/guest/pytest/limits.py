"""Limit each phase of a test, so that a test that hangs fails long before its guest counts as hung.

The limit pauses during a wait with its own deadline (`kernel_matrix.guest.system.deadline.declared`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Generator, Iterator
from types import FrameType

import pytest

from kernel_matrix.guest.system.deadline import limit
from kernel_matrix.shared.channel.protocol import STACKS

#: the default limit is the smaller one: seconds on the reference machine, or this part of the guest's silence limit
DEFAULT_SECONDS, PART_OF_SILENCE = 10.0, 0.5
#: marks the threads of the channel to the host, which take no part in tests
_CHANNEL = "execnet"


def seconds_for(item: pytest.Item, option: float | None) -> float:
    """Return the limit of a phase in seconds, 0 for none: from the test's mark, the option, or the default.

    A mark's seconds are those of the reference machine; the option's are used unchanged.
    """
    mark = item.get_closest_marker("timeout")
    if mark is not None:
        if len(mark.args) != 1 or mark.kwargs or not isinstance(mark.args[0], int | float) or mark.args[0] < 0:
            raise pytest.UsageError(f"{item.nodeid}: a limit is timeout(seconds), 0 for none")
        return limit(mark.args[0])
    if option is not None:
        return option
    return min(limit(DEFAULT_SECONDS), PART_OF_SILENCE * float(os.environ.get("HARNESS_SILENCE", "inf")))


class LimitPlugin:
    """Raises an exception in a phase that takes too long, so that the report shows where it was."""

    def __init__(self, seconds: float | None) -> None:
        """Use the limit of the command line, None for the default."""
        self._seconds = seconds

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """Limit the set-up, with the fixtures of a larger scope that it sets up."""
        with self._limited(item, "setup"):
            return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Limit the test itself."""
        with self._limited(item, "call"):
            return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Limit the teardown, independently of the time that the test has taken."""
        with self._limited(item, "teardown"):
            return (yield)

    @contextlib.contextmanager
    def _limited(self, item: pytest.Item, when: str) -> Iterator[None]:
        seconds = seconds_for(item, self._seconds)

        def fail(_number: int, frame: FrameType | None) -> None:
            if stacks := _other_stacks():
                item.add_report_section(when, STACKS, stacks)
            where = f", in {frame.f_code.co_filename}:{frame.f_lineno}" if frame else ""
            pytest.fail(f"no end of the {when} within {seconds:.0f} s (its limit){where}")

        previous = signal.signal(signal.SIGALRM, fail)
        # repeated after the same time, in case the test catches the exception
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)


def _other_stacks() -> str:
    """Return the stacks of the process's other threads; empty when the test has none."""
    frames = sys._current_frames()  # noqa: SLF001 - documented, in spite of its name
    stacks = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if thread is threading.main_thread() or frame is None:
            continue
        stack = traceback.format_stack(frame)
        if not any(_CHANNEL in line for line in stack):
            stacks.append(f"{thread.name}:\n{''.join(stack)}")
    return "\n".join(stacks)
