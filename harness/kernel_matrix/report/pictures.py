"""Bar charts of a result set: verifier costs of programs, durations of tests. Pure; the template draws them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kernel_matrix.results.changes import Kind
from kernel_matrix.results.document import Document
from kernel_matrix.shared.bpf.costs import Cost
from kernel_matrix.shared.outcomes.cells import Cell

_SLOWEST = 10


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a picture."""

    label: str
    #: its length, from 0 to 1
    length: float
    #: the figure, formatted
    figure: str
    #: the tooltip
    title: str
    #: the cell that it shows, if it shows one
    cell: Cell | None = None
    #: whether it changed against the baseline
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """Bars with one scale."""

    title: str
    #: the figures in one line
    summary: str
    bars: tuple[Bar, ...]
    marked: bool = False


def costs(document: Document) -> tuple[Picture, ...]:
    """Return a picture of each program: instructions processed by the verifier for each kernel; changed ones first."""
    changed = {
        (change.kernel, change.what) for change in document.changes if change.kind in {Kind.COSTLIER, Kind.CHEAPER}
    }
    programs: dict[str, list[tuple[str, Cost]]] = {}
    for column in document.columns:
        for program, cost in column.costs.items():
            programs.setdefault(program, []).append((column.kernel, cost))
    pictures = [_program(name, of_kernels, changed) for name, of_kernels in programs.items()]
    most = {name: max(cost.instructions for _, cost in of_kernels) for name, of_kernels in programs.items()}
    return tuple(sorted(pictures, key=lambda picture: (not picture.marked, -most[picture.title], picture.title)))


def _program(name: str, of_kernels: Sequence[tuple[str, Cost]], changed: set[tuple[str, str]]) -> Picture:
    figures = [cost.instructions for _, cost in of_kernels]
    low, most = min(figures), max(figures)
    bars = tuple(
        Bar(
            kernel,
            _ratio(cost.instructions, most),
            f"{cost.instructions:,}",
            _tooltip(kernel, cost),
            marked=(kernel, name) in changed,
        )
        for kernel, cost in of_kernels
    )
    summary = f"{most:,}" if low == most else f"{low:,} to {most:,}"
    return Picture(name, f"{summary} instructions", bars, any(bar.marked for bar in bars))


def _tooltip(kernel: str, cost: Cost) -> str:
    return (
        f"{kernel}: {cost.instructions:,} instructions processed, {cost.states:,} states ({cost.peak_states:,}), "
        f"{cost.stack:,} bytes of stack, {cost.translated:,} bytes as kept, {cost.jited:,} as machine code, "
        f"verification {cost.load:.2f} times as long as that of the fixed program"
    )


def seconds(document: Document) -> Picture:
    """Return how long the tests of each kernel took together."""
    totals = {column.kernel: 0.0 for column in document.columns}
    for cell in document.cells:
        totals[cell.kernel] = totals.get(cell.kernel, 0.0) + cell.duration
    most = max(totals.values(), default=0.0)
    bars = [
        Bar(name, _ratio(total, most), duration_text(total), f"{name}: {duration_text(total)}")
        for name, total in totals.items()
    ]
    return Picture("Seconds of tests per kernel", f"{duration_text(sum(totals.values()))} together", tuple(bars))


def slowest(document: Document) -> Picture:
    """Return the slowest tests, with the kernels on which they took longest."""
    longest: dict[str, Cell] = {}
    for cell in _by_duration(document.cells):
        longest.setdefault(cell.test, cell)
    cells = [cell for cell in longest.values() if cell.duration > 0][:_SLOWEST]
    most = max((cell.duration for cell in cells), default=0.0)
    bars = [
        Bar(
            cell.test.rpartition("/")[2],
            _ratio(cell.duration, most),
            f"{duration_text(cell.duration)} on {cell.kernel}",
            f"{cell.test}: {duration_text(cell.duration)} on {cell.kernel}",
            cell,
        )
        for cell in cells
    ]
    return Picture("Slowest tests", "each on the kernel where it took longest", tuple(bars))


def _by_duration(cells: Iterable[Cell]) -> list[Cell]:
    return sorted(cells, key=lambda cell: -cell.duration)


def _ratio(value: float, most: float) -> float:
    return round(value / most, 4) if most else 0.0


def duration_text(seconds: float) -> str:
    """Return a duration in hours, minutes and seconds."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
