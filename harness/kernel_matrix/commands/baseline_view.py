"""The commands ``baseline`` and ``compare``: show what a result set changes, rewrite the baseline from it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kernel_matrix.config import manifest
from kernel_matrix.config.project import OWN_FILE, TABLE
from kernel_matrix.results import baseline, comparison, document, matrix
from kernel_matrix.results.baseline import Expectation
from kernel_matrix.results.changes import Change
from kernel_matrix.shared.errors import HarnessError, ManifestError
from kernel_matrix.shared.outcomes import proposals
from kernel_matrix.shared.outcomes.cells import IMAGE, Outcome
from kernel_matrix.shared.project import Project

#: names the project's baseline in place of a result set
BASELINE = "baseline"
#: changes that are shown
_LISTED = 200


@dataclass(frozen=True, slots=True)
class CommandOutput:
    """The lines that a command prints, and its exit status."""

    lines: tuple[str, ...]
    status: int = 0


def chosen(project: Project, names: Sequence[str]) -> set[str]:
    """Return the guests of kernels of these names (``core``, ``full``; none: all); raises ManifestError."""
    kernel_manifest = manifest.load(project.images)
    kernels = manifest.select(kernel_manifest, names or ["full"])
    return {
        guest
        for kernel in kernels
        for guest in (kernel.name, *(variant.of(kernel) for variant in kernel_manifest.variants))
    }


def differences(project: Project, results: Path, names: Sequence[str]) -> CommandOutput:
    """Return how a result set differs from the baseline; status 1 when a difference gates."""
    run = document.read(results)
    columns = _columns(run, chosen(project, names))
    changes = comparison.compare(baseline.read(project.matrix_baselines), columns, _scope(project, run))
    return CommandOutput(tuple(_lines(changes)), int(any(change.gates for change in changes)))


def update(project: Project, results: Path, names: Sequence[str]) -> CommandOutput:
    """Rewrite the baseline of a result set's kernels; return what changed, and what is red and so not recorded.

    Raises HarnessError when the result set has none of the kernels, was interrupted or has no verdict.
    """
    run = document.read(results)
    if run.exit_status not in {0, 1} and not _only_lacks_images(run):
        raise HarnessError(f"{results}: the run ended with status {run.exit_status}: its results are no baseline")
    columns = _columns(run, chosen(project, names))
    if not columns:
        raise HarnessError(f"{results}: no results of {' '.join(names) or 'any kernel'}")
    before, scope = baseline.read(project.matrix_baselines), _scope(project, run)
    lines = list(_lines(comparison.compare(before, columns, scope)))
    status = count = 0
    for kernel, now in columns.items():
        if not any(outcome.green for outcome in now.tests.values()):
            # a guest that did not boot does not show that its tests are gone
            lines.append(f"not recorded: {kernel}: nothing of it is green")
            status = 1
            continue
        entry, red = baseline.updated(before.get(kernel), now, whole=scope.whole)
        lines += [f"not recorded: {kernel} {test}: {now.tests[test]}, and red is never expected" for test in red]
        status = status or int(bool(red))
        baseline.write(project.matrix_baselines, kernel, entry)
        count += 1
    lines += _proposed(project, run, columns)
    return CommandOutput(
        (*lines, f"{count} kernels recorded in {project.relative(project.matrix_baselines)}/: review the difference"),
        status,
    )


def _only_lacks_images(run: document.Document) -> bool:
    """Whether the run has its status because some kernels' images were unavailable: it judged all others."""
    verdict = matrix.exit_status(matrix.Matrix.of(run.cells, (), ()))
    return run.exit_status == verdict and any(cell.test != IMAGE for cell in run.cells)


def _proposed(project: Project, run: document.Document, kernels: Collection[str]) -> list[str]:
    """Return what the undeclared cells of these kernels want in the table."""
    cells = [cell for cell in run.cells if cell.outcome is Outcome.UNDECLARED and cell.kernel in kernels]
    above = "" if project.table == OWN_FILE else TABLE
    tables = proposals.tables(proposals.of_texts(cell.detail for cell in cells), above)
    if not tables:
        return []
    return [f"{len(cells)} cells are undeclared; for {project.table}, with your loader's values:", *tables]


def compare(project: Project, first: str, second: str) -> CommandOutput:
    """Compare two result sets: folders, files, ``baseline``, or one kernel of them (``FOLDER:6.1``).

    Status 1 when a difference would gate.
    """
    scope = replace(manifest.gate(project, manifest.load(project.images)), whole=True)
    left, right = (_result_set(project, name) for name in (first, second))
    if len(left) == 1 and len(right) == 1 and set(left) != set(right):
        # two kernels: compared as one column, without their versions, which always differ
        both = f"{next(iter(left))} -> {next(iter(right))}"
        left, right = (
            {both: replace(column, release="", version="", config="")}
            for columns in (left, right)
            for column in columns.values()
        )
    elif not set(left) & set(right):
        raise ManifestError(f"{first} and {second} have no kernel in common; compare two with FOLDER:KERNEL")
    only = [
        f"only in {name}: {kernel}"
        for name, here, there in ((first, left, right), (second, right, left))
        for kernel in here
        if kernel not in there
    ]
    common = {kernel: column for kernel, column in right.items() if kernel in left}
    changes = comparison.compare({kernel: left[kernel] for kernel in common}, common, scope)
    return CommandOutput((*only, *_lines(changes)), int(any(change.gates for change in changes)))


def _lines(changes: Sequence[Change]) -> Iterator[str]:
    yield from comparison.lines(changes, _LISTED)
    yield comparison.summary(changes) or "no difference"


def _scope(project: Project, run: document.Document) -> comparison.Scope:
    return replace(manifest.gate(project, manifest.load(project.images)), whole=run.complete)


def _columns(run: document.Document, kernels: set[str]) -> dict[str, Expectation]:
    return {kernel: column for kernel, column in baseline.of_document(run).items() if kernel in kernels}


def _result_set(project: Project, name: str) -> Mapping[str, Expectation]:
    source, _, kernel = (name, "", "") if Path(name).exists() else name.rpartition(":")
    if not source:
        source, kernel = name, ""
    if source == BASELINE:
        columns = baseline.read(project.matrix_baselines)
    else:
        columns = baseline.of_document(document.read(Path(source)))
    if kernel and kernel not in columns:
        raise ManifestError(f"{source} has no kernel {kernel!r} (it has: {', '.join(columns)})")
    return {kernel: columns[kernel]} if kernel else columns
