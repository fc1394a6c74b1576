"""The matrix: kernels x tests, with the exit status that its cells decide. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from kernel_matrix.results.changes import Change
from kernel_matrix.shared.outcomes.cells import IMAGE, Cell, Outcome
from kernel_matrix.shared.outcomes.features import VARIANT


@dataclass(frozen=True, slots=True)
class Matrix:
    """Every cell that is expected or was reported."""

    #: sorted by kernel (in the order of the run) and test
    cells: tuple[Cell, ...]
    kernels: tuple[str, ...]

    @classmethod
    def of(cls, cells: Iterable[Cell], expected: Iterable[tuple[str, str]], kernels: Iterable[str]) -> Matrix:
        """Join reported and expected cells: an expected (kernel, test) without a report becomes notrun."""
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
    collected: Mapping[str, Collection[str]], left_out: Mapping[str, Collection[str]], *, named: bool
) -> set[tuple[str, str]]:
    """Return the expected cells: a kernel runs what any kernel of its variant collected, less what is deselected.

    ``collected``: kernel -> its tests; ``named``: a kernel runs only what it collected itself.
    """
    union: dict[str, set[str]] = {}
    for kernel, tests in collected.items():
        union.setdefault(kernel.partition(VARIANT)[2], set()).update(tests)
    return {
        (kernel, test)
        for kernel, tests in collected.items()
        for test in (tests if named else union[kernel.partition(VARIANT)[2]] - set(left_out.get(kernel, ())))
    }


def exit_status(matrix: Matrix, changes: Iterable[Change] = (), *, part: bool = False) -> int:
    """Return 0 when there are cells, all are green and no difference from the baseline gates; otherwise 1.

    3 when no cell has a verdict, or the only red cells are kernels whose images were unavailable: that never hides a
    proven regression. A ``part`` of a run may have no cells.
    """
    verdicts = [cell for cell in matrix.cells if cell.outcome.traits.decided]
    if matrix.cells and not verdicts:
        return 3
    if any(change.gates for change in changes):
        return 1
    if (matrix.cells or part) and not matrix.red:
        return 0
    return 1 if any(cell.test != IMAGE for cell in matrix.red) else 3


def summary_line(cells: Iterable[Cell]) -> str:
    """Return the number of cells of each outcome in one line."""
    counts = Counter(cell.outcome for cell in cells)
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome]) or "no cells"
