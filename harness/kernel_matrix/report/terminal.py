"""The matrix in a terminal: a table of files and kernels, and a line for each red cell. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kernel_matrix.results.findings import by_file, by_kernel, findings
from kernel_matrix.results.matrix import Matrix
from kernel_matrix.shared.outcomes import expect
from kernel_matrix.shared.outcomes.cells import Cell, Outcome

#: columns of the table where the output is no terminal: for the tests, and for each kernel
_LOG_WIDTH = (56, 26)
#: red cells that are listed; a broken run has thousands, and results.jsonl has them all
LISTED = 40


class Screen(Console):
    """rich's output, but for a pipe whose reader has gone: the command ends as with its other output."""

    def on_broken_pipe(self) -> None:
        """Raise the BrokenPipeError that is being handled; rich would exit with status 1."""
        raise  # noqa: PLE0704


def render_table(matrix: Matrix, releases: Mapping[str, str], loaders: Sequence[str] = ()) -> Table:
    """Return a table of test files x kernels with counts by outcome; ``releases`` names each kernel's release.

    With ``loaders``, further rows have the tests of each loader.
    """
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
    by_loader = {loader: [c for c in matrix.cells if expect.loader_of(c.test, loaders) == loader] for loader in loaders}
    if any(by_loader.values()):
        table.add_section()
    for loader, cells in by_loader.items():
        if cells:
            row = by_kernel(cells)
            table.add_row(f"with {loader}", *[counts(row.get(kernel, [])) for kernel in matrix.kernels])
    return table


def log_width(matrix: Matrix) -> int:
    """Return the table's width in a log, wide enough that no column is folded."""
    return _LOG_WIDTH[0] + _LOG_WIDTH[1] * len(matrix.kernels)


def red_lines(matrix: Matrix) -> list[str]:
    """Return a line for each red cell, at most `LISTED`; one for all cells that an object's refusal makes red."""
    tests = [cell for cell in matrix.red if ".o::" not in cell.test]
    lines = [_red_line(cell.outcome, cell.kernel, cell.test, cell.detail.partition("\n")[0]) for cell in tests]
    lines += [
        _red_line(one.outcome, " ".join(one.kernels), one.test, one.line)
        for one in findings(cell for cell in matrix.red if ".o::" in cell.test)
    ]
    more = [f"... and {len(lines) - LISTED} more in results.jsonl"] if len(lines) > LISTED else []
    return [*lines[:LISTED], *more]


def _red_line(outcome: Outcome, kernels: str, test: str, why: str) -> str:
    return f"{outcome.sign} {outcome:6} {kernels} {test}: {why}"


def counts(cells: Iterable[Cell]) -> Text:
    """Return the number of cells of each outcome, with its sign."""
    number = Counter(cell.outcome for cell in cells)
    text = Text()
    for outcome in Outcome:
        if number[outcome]:
            text.append(" " if text else "")
            text.append(f"{number[outcome]} {outcome.sign}", style=outcome.traits.colour)
    return text


def legend(cells: Iterable[Cell]) -> str:
    """Return the signs and names of the outcomes that the cells have."""
    present = {cell.outcome for cell in cells}
    return "  ".join(f"{outcome.sign} {outcome}" for outcome in Outcome if outcome in present)
