"""What `bench` has measured: as data, and as tables for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from statistics import median

from kernel_matrix.commands.bench import edit_loop
from kernel_matrix.commands.bench.edit_loop import Loop
from kernel_matrix.shared.channel.console import Phases


@dataclass(frozen=True, slots=True)
class Start:
    """From QEMU's start to the start of the first test: seconds, and CPU seconds of virtme-ng and QEMU."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Row:
    """One kernel's starts, taken in turns."""

    kernel: str
    plain: tuple[Start, ...]
    booted: tuple[Start, ...]
    restored: tuple[Start, ...]
    #: seconds from a guest's end to the first test of the next, with a fresh guest for every test
    fresh: tuple[float, ...]
    #: seconds from the notice of a panic to the next test
    panic: tuple[float, ...]
    #: of the boots
    phases: tuple[Phases, ...] = ()


@dataclass(frozen=True, slots=True)
class Whole:
    """One run of everything; seconds."""

    plain: float
    warm: float
    #: CPU seconds that the warm run's guests used from their first tests to their last
    tests_cpu: float
    #: the most anonymous memory that the warm run's processes held together, in MiB
    memory_mib: int
    #: how the plain runs ended
    summaries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """The content of bench.json."""

    machine: str
    cores: int
    accelerator: str
    snapshots: str
    rows: tuple[Row, ...]
    whole: tuple[Whole, ...]
    loops: tuple[Loop, ...] = ()


def markdown(report: Report) -> str:
    """Return the report as tables: median (least to most)."""
    lines = [
        "# How fast the matrix is",
        "",
        f"{report.machine}; {report.accelerator}; {report.snapshots}. Median (least to most).",
    ]
    if report.rows:
        lines += _tables(report.rows)
    if report.loops:
        lines += edit_loop.markdown(report.loops)
    if report.whole:
        lines += [
            "",
            "Everything, in seconds; the tests' share is their CPU time divided by the cores:",
            "",
            "| plain | warm | plain / warm | CPU of the tests | warm / the tests' share | memory, MiB |",
            "|---|---|---|---|---|---|",
            *[whole_line(whole, report.cores) for whole in report.whole],
            "",
            *[f"- plain, {summary}" for whole in report.whole for summary in whole.summaries],
        ]
    return "\n".join(lines) + "\n"


def _tables(rows: Sequence[Row]) -> list[str]:
    head = (
        "| kernel | plain, wall | plain, CPU | booted, wall | booted, CPU | restored, wall | restored, CPU"
        " | CPU plain / restored | a guest for every test | after a panic |"
    )
    return [
        "",
        "From QEMU's start to the start of the first test, in seconds; what a fresh guest costs:",
        "",
        head,
        "|---|---|---|---|---|---|---|---|---|---|",
        *[start_line(row) for row in rows],
        "",
        "A cold boot until the guest is ready, by phase, in seconds of the guest's clock:",
        "",
        "| kernel | kernel | initramfs | user space | imports |",
        "|---|---|---|---|---|",
        *[_phases_line(row) for row in rows],
    ]


def start_line(row: Row) -> str:
    """Return the line of a kernel's starts: each as a spread."""
    ratios = [plain.cpu / warm.cpu for plain, warm in zip(row.plain, row.restored, strict=True) if warm.cpu]
    kinds = (row.plain, row.booted, row.restored)
    starts = [[getattr(start, what) for start in kind] for kind in kinds for what in ("wall", "cpu")]
    return f"| {row.kernel} | {' | '.join(_spread(column) for column in [*starts, ratios, row.fresh, row.panic])} |"


def _phases_line(row: Row) -> str:
    columns = [[getattr(phases, field.name) for phases in row.phases] for field in fields(Phases)]
    return f"| {row.kernel} | {' | '.join(_spread(column) for column in columns)} |"


def whole_line(whole: Whole, cores: int) -> str:
    """Return the line of a run of everything, on a machine of so many cores."""
    share = whole.tests_cpu / cores
    return (
        f"| {whole.plain:.0f} | {whole.warm:.0f} | {whole.plain / whole.warm:.1f} | {whole.tests_cpu:.0f}"
        f" | {whole.warm / share if share else 0:.2f} | {whole.memory_mib} |"
    )


def _spread(values: Iterable[float]) -> str:
    ordered = sorted(values)
    if not ordered:
        return "-"
    return f"{median(ordered):.2f} ({ordered[0]:.2f} to {ordered[-1]:.2f})"
