"""The findings of a result set, joined over the kernels on which they are the same. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from kernel_matrix.results.changes import Change
from kernel_matrix.results.document import Document
from kernel_matrix.results.text import reason
from kernel_matrix.shared.outcomes.cells import Cell, Outcome


@dataclass(frozen=True, slots=True)
class Finding:
    """A test, or an object or a program of it, that is red for one reason, on some kernels."""

    test: str
    outcome: Outcome
    #: the line of the cells' details that says why
    line: str
    #: in the order of the run
    cells: tuple[Cell, ...]

    @property
    def kernels(self) -> tuple[str, ...]:
        """The kernels on which it is red."""
        return tuple(dict.fromkeys(cell.kernel for cell in self.cells))


@dataclass(frozen=True, slots=True)
class Difference:
    """A change that is the same on several kernels."""

    #: of the first kernel
    change: Change
    kernels: tuple[str, ...]


def findings(cells: Iterable[Cell]) -> tuple[Finding, ...]:
    """Join the red cells of a test, or of an object, that have the same outcome and reason.

    Crashes come first, missing reports last.
    """
    groups: dict[tuple[str, Outcome, str], list[Cell]] = {}
    for cell in cells:
        if not cell.outcome.green:
            groups.setdefault((_subject(cell.test), cell.outcome, reason(cell.detail)), []).append(cell)
    joined = [
        Finding(shared_name([cell.test for cell in same]), outcome, line, tuple(same))
        for (_, outcome, line), same in groups.items()
    ]
    return tuple(sorted(joined, key=lambda finding: (-finding.outcome.traits.rank, finding.test)))


def _subject(test: str) -> str:
    """Return what is refused for one reason: a test, or the whole object whose programs are tested."""
    file = test.partition("::")[0]
    return file if file.endswith(".o") else test


def shared_name(tests: Sequence[str]) -> str:
    """Return the parts of names that all tests share: a test, a program of an object, or the object."""
    parts = [test.split("::") for test in tests]
    return "::".join(same[0] for same in takewhile(lambda same: len(set(same)) == 1, zip(*parts, strict=False)))


def differences(changes: Iterable[Change]) -> tuple[Difference, ...]:
    """Join changes that differ only in their kernel; those that gate first, otherwise in the same order."""
    kernels: dict[Change, list[str]] = {}
    for change in changes:
        kernels.setdefault(replace(change, kernel=""), []).append(change.kernel)
    joined = [Difference(replace(change, kernel=where[0]), tuple(where)) for change, where in kernels.items()]
    return tuple(sorted(joined, key=lambda difference: not difference.change.gates))


def unchanged(document: Document) -> str:
    """Return the line for a result set without changes; a run that was interrupted is not compared."""
    is_command = any(argument.startswith("--command=") for argument in document.arguments)
    if is_command or document.exit_status in {2, 4}:
        return "This run was not compared with the baseline."
    return "Nothing has changed against the baseline."


def by_kernel(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Return the cells of each kernel."""
    columns: dict[str, list[Cell]] = {}
    for cell in cells:
        columns.setdefault(cell.kernel, []).append(cell)
    return columns


def by_file(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Return the cells of each test file, with files and tests sorted."""
    files: dict[str, list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: cell.test):
        files.setdefault(cell.test.partition("::")[0], []).append(cell)
    return files
