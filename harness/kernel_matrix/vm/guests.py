"""Measure each guest of a run: the time until its agent answered, until its first test, and for its tests."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from kernel_matrix.shared import wire
from kernel_matrix.shared.channel.division import WorkerId
from kernel_matrix.vm.ending import STARTED, Started
from kernel_matrix.vm.process_guard import cpu_seconds


@dataclass(frozen=True, slots=True)
class GuestRecord:
    """One guest that started; times in seconds, ``cpu`` in CPU seconds of virtme-ng, QEMU and their children."""

    kernel: str
    #: "cold" or "restored"
    how: str
    #: a remark for the user; empty when nothing unusual happened
    note: str
    #: from QEMU's start to the agent's answer
    ready: float
    #: from QEMU's start to the start of the first test; None when none started
    first_test: float | None = None
    first_test_cpu: float | None = None
    #: from the start of the first test to the end of the last; None for a guest that died
    tests: float | None = None
    tests_cpu: float | None = None
    #: from the end of the worker's previous guest, or the notice of its death, to the start of the first test
    gap: float | None = None
    #: ``uname -r``, as the guest reported it
    release: str = ""


class Guests:
    """Measures the guests of a run; a worker has one at a time, whose relay writes a Started to ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        #: worker -> its current guest's Started, and the start of its first test in CLOCK_MONOTONIC and CPU seconds
        self._first: dict[WorkerId, tuple[Path, float, float]] = {}
        self._records: dict[Path, GuestRecord] = {}
        #: worker -> end of its last guest
        self._ended: dict[WorkerId, float] = {}

    def test_starts(self, worker: WorkerId) -> None:
        """Record the start of a test, if it is the first of its guest."""
        if worker in self._first or not (paths := self._paths(worker)):
            return
        path = max(paths, key=lambda path: path.stat().st_mtime_ns)
        started = wire.decode(path.read_bytes(), Started)
        self._first[worker] = (path, time.monotonic(), cpu_seconds(started.group))

    def ends(self, worker: WorkerId, *, alive: bool) -> None:
        """Record the end of the last test of the worker's current guest; ``alive``: the guest survived it."""
        if worker not in self._first:
            return
        path, at, cpu = self._first.pop(worker)
        now = time.monotonic()
        started = wire.decode(path.read_bytes(), Started)
        self._records[path] = GuestRecord(
            worker.kernel,
            started.how,
            started.note,
            started.seconds,
            round(at - started.began, 3),
            round(cpu, 3),
            round(now - at, 3) if alive else None,
            round(cpu_seconds(started.group) - cpu, 3) if alive else None,
            round(at - self._ended[worker], 3) if worker in self._ended else None,
            started.release,
        )
        self._ended[worker] = now

    def records(self) -> tuple[GuestRecord, ...]:
        """Return the records of all guests that started, also of those without a test."""
        for path in self._paths("*"):
            started = wire.decode(path.read_bytes(), Started)
            if path not in self._records:
                self._records[path] = GuestRecord(
                    started.kernel, started.how, started.note, started.seconds, release=started.release
                )
        return tuple(self._records[path] for path in sorted(self._records))

    def _paths(self, worker: WorkerId | str) -> list[Path]:
        return list(self._folder.glob(f"{worker}.*{STARTED}"))


def summary(records: Iterable[GuestRecord]) -> str:
    """Summarize in one line how many guests started how, and in what time (median, minimum and maximum)."""
    by_how: dict[str, list[GuestRecord]] = {}
    for record in records:
        by_how.setdefault(record.how, []).append(record)
    parts = []
    for how, group in sorted(by_how.items()):
        part = f"{len(group)} {how} in {_spread([record.ready for record in group])}"
        if first_tests := [record.first_test for record in group if record.first_test is not None]:
            part += f", first test after {_spread(first_tests)}"
        parts.append(part)
    return f"guests: {'; '.join(parts)}"


def _spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.1f} s"
    return f"{median(values):.1f} s ({min(values):.1f} to {max(values):.1f})"
