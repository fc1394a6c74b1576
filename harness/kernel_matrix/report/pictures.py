"""Bars of a result set: what programs cost the verifier, and how long tests took. Pure; the template draws them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kernel_matrix.results.document import Document
from kernel_matrix.shared.cells import Cell
from kernel_matrix.shared.changes import Kind
from kernel_matrix.shared.costs import Cost

_SLOWEST = 10


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a picture."""

    label: str
    #: its length, from 0 to 1
    length: float
    #: the figure, as people read it
    figure: str
    #: all there is to say
    title: str
    #: the cell it is about; None for none
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
    """Return a picture for each program: instructions the verifier processed, a bar a kernel; what changed first."""
    changed = {
        (change.kernel, change.what) for change in document.changes if change.kind in {Kind.COSTLIER, Kind.CHEAPER}
    }
    programs: dict[str, list[tuple[str, Cost]]] = {}
    for column in document.columns:
        for program, cost in column.costs.items():
            programs.setdefault(program, []).append((column.kernel, cost))
    found = [_program(name, of_kernels, changed) for name, of_kernels in programs.items()]
    most = {name: max(cost.instructions for _, cost in of_kernels) for name, of_kernels in programs.items()}
    return tuple(sorted(found, key=lambda each: (not each.marked, -most[each.title], each.title)))


def _program(name: str, of_kernels: Sequence[tuple[str, Cost]], changed: set[tuple[str, str]]) -> Picture:
    figures = [cost.instructions for _, cost in of_kernels]
    low, most = min(figures), max(figures)
    bars = tuple(
        Bar(kernel, _ratio(cost.instructions, most), f"{cost.instructions:,}", _said(kernel, cost), None, here)
        for kernel, cost in of_kernels
        for here in [(kernel, name) in changed]
    )
    summary = f"{most:,}" if low == most else f"{low:,} to {most:,}"
    return Picture(name, f"{summary} instructions", bars, any(bar.marked for bar in bars))


def _said(kernel: str, cost: Cost) -> str:
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
    bars = [Bar(name, _ratio(each, most), spoken(each), f"{name}: {spoken(each)}") for name, each in totals.items()]
    return Picture("Seconds of tests per kernel", f"{spoken(sum(totals.values()))} together", tuple(bars))


def slowest(document: Document) -> Picture:
    """Return the slowest tests, each with the kernel on which it took longest."""
    longest: dict[str, Cell] = {}
    for cell in _by_duration(document.cells):
        longest.setdefault(cell.test, cell)
    found = [cell for cell in longest.values() if cell.duration > 0][:_SLOWEST]
    most = max((cell.duration for cell in found), default=0.0)
    bars = [
        Bar(
            cell.test.rpartition("/")[2],
            _ratio(cell.duration, most),
            f"{spoken(cell.duration)} on {cell.kernel}",
            f"{cell.test}: {spoken(cell.duration)} on {cell.kernel}",
            cell,
        )
        for cell in found
    ]
    return Picture("Slowest tests", "each on the kernel where it took longest", tuple(bars))


def _by_duration(cells: Iterable[Cell]) -> list[Cell]:
    return sorted(cells, key=lambda cell: -cell.duration)


def _ratio(value: float, most: float) -> float:
    return round(value / most, 4) if most else 0.0


def spoken(seconds: float) -> str:
    """Return a duration as people say it."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
