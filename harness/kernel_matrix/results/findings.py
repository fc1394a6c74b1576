"""What a reader has to see of a result set, said once for all kernels it is the same on. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from kernel_matrix.results.document import Document
from kernel_matrix.shared.cells import Cell, Outcome
from kernel_matrix.shared.changes import Change
from kernel_matrix.shared.text import reason


@dataclass(frozen=True, slots=True)
class Finding:
    """A test that is red for one reason, on some kernels."""

    test: str
    outcome: Outcome
    #: the line of the cells' details that says why
    line: str
    #: a cell a kernel, in the order of the run
    cells: tuple[Cell, ...]

    @property
    def kernels(self) -> tuple[str, ...]:
        """Where it is red."""
        return tuple(cell.kernel for cell in self.cells)


@dataclass(frozen=True, slots=True)
class Difference:
    """A change that is the same on some kernels."""

    #: of the first kernel
    change: Change
    kernels: tuple[str, ...]


def findings(cells: Iterable[Cell]) -> tuple[Finding, ...]:
    """Join red cells that say the same of a test; crashes first, cells without a report last."""
    found: dict[tuple[str, Outcome, str], list[Cell]] = {}
    for cell in cells:
        if not cell.outcome.green:
            found.setdefault((cell.test, cell.outcome, reason(cell.detail)), []).append(cell)
    joined = [Finding(test, outcome, line, tuple(same)) for (test, outcome, line), same in found.items()]
    return tuple(sorted(joined, key=lambda each: (-each.outcome.traits.rank, each.test)))


def differences(changes: Iterable[Change]) -> tuple[Difference, ...]:
    """Join changes that differ only in their kernel; what gates first, the order kept otherwise."""
    found: dict[Change, list[str]] = {}
    for change in changes:
        found.setdefault(replace(change, kernel=""), []).append(change.kernel)
    joined = [Difference(replace(change, kernel=where[0]), tuple(where)) for change, where in found.items()]
    return tuple(sorted(joined, key=lambda each: not each.change.gates))


def unchanged(document: Document) -> str:
    """Return the line for a result set without a change: an end before its time is compared with nothing."""
    own = any(argument.startswith("--command=") for argument in document.arguments)
    if own or document.exit_status in {2, 4}:
        return "This run was not compared with the baseline."
    return "Nothing has changed against the baseline."


def by_kernel(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Return the cells of each kernel."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.kernel, []).append(cell)
    return found


def by_file(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Return the cells of each test file, files and tests sorted."""
    files: dict[str, list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: cell.test):
        files.setdefault(cell.test.partition("::")[0], []).append(cell)
    return files
