"""A limit for each phase of a test: one that hangs ends as a failure, long before its guest counts as hung.

What waits by a deadline of its own is not hit by it (`kernel_matrix.guest.system.deadline.declared`).
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
from kernel_matrix.shared.protocol import STACKS

#: seconds on the reference machine, and the part of the silence after which the guest is given up: the less counts
DEFAULT_SECONDS, PART_OF_SILENCE = 6.0, 0.5
#: threads of the channel to the host, which have no part in any test
_CHANNEL = "execnet"


def seconds_for(item: pytest.Item, option: float | None) -> float:
    """Return the limit of a phase in seconds of this guest, 0 for none: the test's mark, the option, the default.

    A mark's seconds are those of the reference machine, the option's are taken as they are.
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
    """Ends what takes too long by an exception where it stands, so that the report shows where that is."""

    def __init__(self, seconds: float | None) -> None:
        """Take the limit of the command line, None for the default."""
        self._seconds = seconds

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """Limit the set-up, and that of fixtures of a larger scope which it begins."""
        with self._limited(item, "setup"):
            return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Limit the test itself."""
        with self._limited(item, "call"):
            return (yield)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Limit the teardown, however much of its limit the test has taken."""
        with self._limited(item, "teardown"):
            return (yield)

    @contextlib.contextmanager
    def _limited(self, item: pytest.Item, when: str) -> Iterator[None]:
        seconds = seconds_for(item, self._seconds)

        def end(_number: int, frame: FrameType | None) -> None:
            if others := _other_stacks():
                item.add_report_section(when, STACKS, others)
            where = f", in {frame.f_code.co_filename}:{frame.f_lineno}" if frame else ""
            pytest.fail(f"no end of the {when} within {seconds:.0f} s (its limit){where}")

        before = signal.signal(signal.SIGALRM, end)
        # again after the same time, where the exception is caught
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def _other_stacks() -> str:
    """Return where the process's other threads stand; empty when the test has none."""
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
