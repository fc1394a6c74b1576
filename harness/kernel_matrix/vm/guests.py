"""What each guest of a run took: until its agent answered, until its first test started, and for its tests."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from kernel_matrix.shared import wire
from kernel_matrix.shared.division import WorkerId
from kernel_matrix.shared.ending import STARTED, Started
from kernel_matrix.vm.process_guard import cpu_seconds


@dataclass(frozen=True, slots=True)
class GuestRecord:
    """One guest that came up; seconds of the host, ``cpu`` those of virtme-ng, QEMU and what they started."""

    kernel: str
    #: "cold" or "restored"
    how: str
    #: what the user should know, empty when all went as it does
    note: str
    #: from QEMU's start to the agent's answer
    ready: float
    #: from QEMU's start to the start of the first test; None when none started
    first_test: float | None = None
    first_test_cpu: float | None = None
    #: from the start of the first test to the end of the last; None for a guest that died
    tests: float | None = None
    tests_cpu: float | None = None
    #: from the end of the guest before in its worker, or the notice of its death, to the start of the first test
    gap: float | None = None


class Guests:
    """Takes the times of a run's guests; a worker has one at a time, whose relay leaves a Started in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        #: worker -> its present guest and when its first test started: seconds of CLOCK_MONOTONIC and of CPU
        self._first: dict[WorkerId, tuple[Path, float, float]] = {}
        self._records: dict[Path, GuestRecord] = {}
        #: worker -> when its last guest was over
        self._over: dict[WorkerId, float] = {}

    def test_starts(self, worker: WorkerId) -> None:
        """Note that a test starts; the first one of its guest counts."""
        if worker in self._first or not (paths := self._paths(worker)):
            return
        path = max(paths, key=lambda path: path.stat().st_mtime_ns)
        started = wire.decode(path.read_bytes(), Started)
        self._first[worker] = (path, time.monotonic(), cpu_seconds(started.group))

    def ends(self, worker: WorkerId, *, alive: bool) -> None:
        """Note that the worker's present guest has run its last test; ``alive``: it has not died in it."""
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
            round(at - self._over[worker], 3) if worker in self._over else None,
        )
        self._over[worker] = now

    def records(self) -> tuple[GuestRecord, ...]:
        """Return what is known of every guest that came up, those without a test too."""
        for path in self._paths("*"):
            started = wire.decode(path.read_bytes(), Started)
            if path not in self._records:
                self._records[path] = GuestRecord(started.kernel, started.how, started.note, started.seconds)
        return tuple(self._records[path] for path in sorted(self._records))

    def _paths(self, worker: WorkerId | str) -> list[Path]:
        return list(self._folder.glob(f"{worker}.*{STARTED}"))


def summary(records: Iterable[GuestRecord]) -> str:
    """Say in one line how many guests came up how, and in how many seconds (median, and from the least to the most)."""
    by_how: dict[str, list[GuestRecord]] = {}
    for each in records:
        by_how.setdefault(each.how, []).append(each)
    parts = []
    for how, found in sorted(by_how.items()):
        part = f"{len(found)} {how} in {_spread([each.ready for each in found])}"
        if tested := [each.first_test for each in found if each.first_test is not None]:
            part += f", first test after {_spread(tested)}"
        parts.append(part)
    return f"guests: {'; '.join(parts)}"


def _spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.1f} s"
    return f"{median(values):.1f} s ({min(values):.1f} to {max(values):.1f})"
