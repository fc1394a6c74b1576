"""How long a guest takes until its agent answers: booted by virtme-ng, and restored; both in one run, in turns."""

from __future__ import annotations

import os
import platform
import select
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from harness import preparation, results, wire
from harness.boot import Boots
from harness.preparation import Wishes
from harness.process_guard import cpu_seconds
from harness.vm import GuestSpec


@dataclass(frozen=True, slots=True)
class Sample:
    """One guest, from QEMU's start to its agent's answer."""

    wall: float
    #: CPU seconds of virtme-ng, QEMU and what they started
    cpu: float


@dataclass(frozen=True, slots=True)
class Row:
    """One kernel's samples, taken in turns."""

    kernel: str
    cold: tuple[Sample, ...]
    restored: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """The content of bench.json."""

    machine: str
    accelerator: str
    rows: tuple[Row, ...]


def run(root: Path, kernels: Sequence[str], runs: int, say: Callable[[str], None]) -> Path:
    """Measure, write bench.json and bench.md beside the results, and return the latter; raises HarnessError."""
    record = results.RunDirectory.create(root / "results")
    wishes = Wishes(tuple(kernels), arguments=(), guests=1, locked=False, silence=None)
    plan = preparation.prepare(root, wishes, record, say=say)
    rows = []
    for guest in plan.guests:
        spec = wire.decode(guest.spec_path.read_bytes(), GuestSpec)
        measure(spec)  # makes the snapshot, if there is none
        pairs = [(measure(replace(spec, snapshot=None)), measure(spec)) for _ in range(runs)]
        rows.append(Row(guest.kernel, tuple(cold for cold, _ in pairs), tuple(warm for _, warm in pairs)))
        say(_line(rows[-1]))
    machine = f"{os.cpu_count()} processors, {platform.machine()}, Linux {platform.release()}"
    report = Report(machine, plan.facts.accelerator, tuple(rows))
    wire.write(root / "results" / "bench.json", report)
    path = root / "results" / "bench.md"
    path.write_text(markdown(report))
    return path


def measure(spec: GuestSpec) -> Sample:
    """Start one guest, and end it when its agent has answered."""
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        boots = Boots(spec, Path(folder), _wait)
        try:
            running = boots.start()
            running.channel.close()
            return Sample(round(running.seconds, 3), round(cpu_seconds(running.group.process.pid), 3))
        finally:
            boots.stop()


def _wait(seconds: float) -> None:
    select.select([], [], [], seconds)


def markdown(report: Report) -> str:
    """Return the report as a table: median (least to most)."""
    lines = [
        "# From start to the agent's answer",
        "",
        f"{report.machine}; {report.accelerator}. Seconds: median (least to most).",
        "",
        "| kernel | booted, wall | booted, CPU | restored, wall | restored, CPU | CPU ratio |",
        "|---|---|---|---|---|---|",
        *[_line(row) for row in report.rows],
    ]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    ratios = [cold.cpu / warm.cpu for cold, warm in zip(row.cold, row.restored, strict=True) if warm.cpu]
    columns = [
        [each.wall for each in row.cold],
        [each.cpu for each in row.cold],
        [each.wall for each in row.restored],
        [each.cpu for each in row.restored],
        ratios,
    ]
    return f"| {row.kernel} | {' | '.join(_spread(column) for column in columns)} |"


def _spread(values: Iterable[float]) -> str:
    ordered = sorted(values)
    if not ordered:
        return "-"
    return f"{median(ordered):.2f} ({ordered[0]:.2f} to {ordered[-1]:.2f})"
