"""The matrix: kernels x tests, judged. Pure: from cells to a verdict, a table and Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from kernel_matrix.results.findings import by_file, by_kernel
from kernel_matrix.shared.cells import IMAGE, Cell, Outcome
from kernel_matrix.shared.changes import Change
from kernel_matrix.shared.features import VARIANT

#: readable without colour, and each outcome its own sign
SIGNS = {
    Outcome.PASS: "✓",
    Outcome.REFUSED: "⊘",
    Outcome.SKIP: "–",
    Outcome.XFAIL: "x",
    Outcome.FAIL: "✗",
    Outcome.ERROR: "E",
    Outcome.XPASS: "X",
    Outcome.CRASH: "☠",
    Outcome.LOST: "?",
    Outcome.NOTRUN: "·",
}
_COLOURS = {Outcome.SKIP: "yellow", Outcome.XFAIL: "yellow"}
#: characters of the table where the output is no terminal: for the tests, and for each kernel
_LOG_WIDTH = (56, 26)
#: red cells that are listed one by one; a broken run has thousands, and results.jsonl has them all
LISTED = 40
#: when results of one cell meet (a test that failed, whose guest died in its teardown), the worse one stays
_WORSE = [
    Outcome.PASS,
    Outcome.REFUSED,
    Outcome.SKIP,
    Outcome.XFAIL,
    Outcome.NOTRUN,
    Outcome.XPASS,
    Outcome.FAIL,
    Outcome.ERROR,
    Outcome.LOST,
    Outcome.CRASH,
]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Every expected cell, and every cell that came."""

    #: sorted by kernel (in the order of the run) and test
    cells: tuple[Cell, ...]
    kernels: tuple[str, ...]

    @classmethod
    def of(cls, cells: Iterable[Cell], expected: Iterable[tuple[str, str]], kernels: Iterable[str]) -> Matrix:
        """Join what came with what was expected: an expected (kernel, test) without a cell becomes notrun."""
        joined: dict[tuple[str, str], Cell] = {}
        for cell in cells:
            before = joined.get((cell.kernel, cell.test))
            if before is None or _WORSE.index(cell.outcome) >= _WORSE.index(before.outcome):
                joined[cell.kernel, cell.test] = cell
        for kernel, test in expected:
            if (kernel, test) not in joined:
                joined[kernel, test] = Cell(kernel, test, Outcome.NOTRUN, detail="no report came")
        columns = tuple(dict.fromkeys([*kernels, *sorted(kernel for kernel, _ in joined)]))
        order = {kernel: number for number, kernel in enumerate(columns)}
        return cls(
            tuple(sorted(joined.values(), key=lambda cell: (order[cell.kernel], cell.test))),
            tuple(kernel for kernel in columns if any(cell.kernel == kernel for cell in joined.values())),
        )

    @property
    def red(self) -> tuple[Cell, ...]:
        """The cells that are not green."""
        return tuple(cell for cell in self.cells if not cell.outcome.green)


def expected(
    own: Mapping[str, Collection[str]], left_out: Mapping[str, Collection[str]], *, named: bool
) -> set[tuple[str, str]]:
    """Return the cells that must be there: every kernel runs what any of its variant collected, less what is left out.

    ``own``: kernel -> the tests that it collected; ``named``: each is held to those alone.
    """
    union: dict[str, set[str]] = {}
    for kernel, tests in own.items():
        union.setdefault(kernel.partition(VARIANT)[2], set()).update(tests)
    return {
        (kernel, test)
        for kernel, tests in own.items()
        for test in (tests if named else union[kernel.partition(VARIANT)[2]] - set(left_out.get(kernel, ())))
    }


def exit_status(matrix: Matrix, changes: Iterable[Change] = (), *, part: bool = False) -> int:
    """Return 0 when there are cells, all are green and no difference from the baseline gates; otherwise 1.

    3 when no cell has a verdict at all, or all that is wrong is that images of kernels were not to be had: a regression
    that is proven is never hidden by that. A ``part`` of a run may have no cells.
    """
    verdicts = [cell for cell in matrix.cells if cell.outcome not in {Outcome.NOTRUN, Outcome.LOST}]
    if matrix.cells and not verdicts:
        return 3
    if any(change.gates for change in changes):
        return 1
    if (matrix.cells or part) and not matrix.red:
        return 0
    return 1 if verdicts and any(cell.test != IMAGE for cell in matrix.red) else 3


def summary_line(cells: Iterable[Cell]) -> str:
    """Return the counts of each outcome in one line."""
    counts = Counter(cell.outcome for cell in cells)
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome]) or "no cells"


def render_table(matrix: Matrix, releases: Mapping[str, str]) -> Table:
    """Return a table of test files x kernels with counts by outcome; ``releases`` names each kernel's release."""
    table = Table(title="kernel matrix", caption=legend(matrix.cells), caption_justify="left")
    table.add_column("tests", overflow="fold")
    for kernel in matrix.kernels:
        table.add_column(f"{kernel}\n{releases.get(kernel, '')}", justify="right")
    rows = by_file(matrix.cells)
    for file, cells in rows.items():
        row = by_kernel(cells)
        table.add_row(file, *[counts(row.get(kernel, [])) for kernel in matrix.kernels])
    if len(rows) > 1:
        totals = by_kernel(matrix.cells)
        table.add_section()
        table.add_row("all", *[counts(totals[kernel]) for kernel in matrix.kernels])
    return table


def log_width(matrix: Matrix) -> int:
    """Return how wide the table is in a log, which has no width of its own, and folded columns are hard to read."""
    return _LOG_WIDTH[0] + _LOG_WIDTH[1] * len(matrix.kernels)


def red_lines(matrix: Matrix) -> list[str]:
    """Return a line for each red cell, the first ones when there are many."""
    lines = [
        f"{SIGNS[cell.outcome]} {cell.outcome:6} {cell.kernel} {cell.test}: {cell.detail.partition(chr(10))[0]}"
        for cell in matrix.red[:LISTED]
    ]
    if len(matrix.red) > LISTED:
        lines.append(f"... and {len(matrix.red) - LISTED} more in results.jsonl")
    return lines


def counts(cells: Iterable[Cell]) -> Text:
    """Return the number of cells of each outcome, with its sign."""
    found = Counter(cell.outcome for cell in cells)
    text = Text()
    for outcome in Outcome:
        if found[outcome]:
            colour = _COLOURS.get(outcome, "green" if outcome.green else "bold red")
            text.append(" " if text else "")
            text.append(f"{found[outcome]} {SIGNS[outcome]}", style=colour)
    return text


def legend(cells: Iterable[Cell]) -> str:
    """Return the signs of the outcomes that there are, and their names."""
    present = {cell.outcome for cell in cells}
    return "  ".join(f"{SIGNS[outcome]} {outcome}" for outcome in Outcome if outcome in present)
