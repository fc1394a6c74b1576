"""Record the timeline of a run (`kernel_matrix.report.timeline`)."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from kernel_matrix.report.timeline import NAME, Timeline
from kernel_matrix.shared import wire


def now() -> float:
    """Return the seconds since this process started (proc_pid_stat(5): starttime, in ticks since the boot)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


class TimelinePlugin:
    """Hooks of the controller that record when they are called."""

    def __init__(self, folder: Path, timeline: Timeline) -> None:
        self._path = folder / NAME
        self._timeline = timeline

    def pytest_xdist_node_collection_finished(self) -> None:
        """Record the first call."""
        self._timeline.collected = self._timeline.collected or now()

    def pytest_runtest_logstart(self) -> None:
        """Record the first call."""
        self._timeline.first_test = self._timeline.first_test or now()

    def pytest_runtest_logreport(self) -> None:
        """Record the last call."""
        self._timeline.last_test = now()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Record the end of the tests."""
        self._timeline.judged = now()

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """Write the timeline."""
        self._timeline.ended = now()
        wire.write(self._path, asdict(self._timeline))
