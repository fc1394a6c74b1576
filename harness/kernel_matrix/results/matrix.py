"""The matrix: kernels x tests, judged. Pure: from cells to a verdict, a table and Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from kernel_matrix.shared.cells import IMAGE, Cell, Outcome
from kernel_matrix.shared.changes import Change
from kernel_matrix.shared.features import VARIANT


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
            if before is None or cell.outcome.traits.rank >= before.outcome.traits.rank:
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
    verdicts = [cell for cell in matrix.cells if cell.outcome.traits.decided]
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
