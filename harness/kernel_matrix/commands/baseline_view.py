"""The commands ``baseline`` and ``compare``: what a result set changes, and the baseline rewritten from one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kernel_matrix.config import manifest
from kernel_matrix.results import baseline, comparison, document
from kernel_matrix.results.baseline import Expectation
from kernel_matrix.shared.changes import Change
from kernel_matrix.shared.errors import HarnessError, ManifestError
from kernel_matrix.shared.project import Project

#: the word for the project's baseline where a result set may stand
BASELINE = "baseline"
#: lines that are shown of what changed
_LISTED = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command says, and its exit status."""

    lines: tuple[str, ...]
    status: int = 0


def chosen(project: Project, names: Sequence[str]) -> set[str]:
    """Return the guests of kernels of these names (``core``, ``full``; none: all); raises ManifestError."""
    known = manifest.load(project.images)
    kernels = manifest.select(known, names or ["full"])
    return {guest for kernel in kernels for guest in (kernel.name, *(each.of(kernel) for each in known.variants))}


def differences(project: Project, results: Path, names: Sequence[str]) -> Answer:
    """Say how a result set differs from the baseline; status 1 when something gates."""
    run = document.read(results)
    found = _of(run, chosen(project, names))
    changes = comparison.compare(baseline.read(project.matrix_baselines), found, _scope(project, run))
    return Answer(tuple(_told(changes)), int(any(change.gates for change in changes)))


def update(project: Project, results: Path, names: Sequence[str]) -> Answer:
    """Rewrite the baseline of a result set's kernels, and say what changed and what was not taken: red is not recorded.

    Raises HarnessError when the result set has none of the kernels, or was interrupted or has no verdict.
    """
    run = document.read(results)
    if run.exit_status not in {0, 1}:
        raise HarnessError(f"{results}: the run ended with status {run.exit_status}: it has not found what is expected")
    found = _of(run, chosen(project, names))
    if not found:
        raise HarnessError(f"{results}: no results of {' '.join(names) or 'any kernel'}")
    before, scope = baseline.read(project.matrix_baselines), _scope(project, run)
    lines = list(_told(comparison.compare(before, found, scope)))
    status = count = 0
    for kernel, now in found.items():
        if not any(outcome.green for outcome in now.tests.values()):
            # a guest that did not boot has not shown that its tests are gone
            lines.append(f"not recorded: {kernel}: nothing of it is green")
            status = 1
            continue
        wanted, red = baseline.recorded(before.get(kernel), now, whole=scope.whole)
        lines += [f"not recorded: {kernel} {test}: {now.tests[test]}, and red is never expected" for test in red]
        status = status or int(bool(red))
        baseline.write(project.matrix_baselines, kernel, wanted)
        count += 1
    return Answer(
        (*lines, f"{count} kernels recorded in {project.relative(project.matrix_baselines)}/: review the difference"),
        status,
    )


def compare(project: Project, first: str, second: str) -> Answer:
    """Compare two result sets: folders, files, ``baseline``, or one kernel of them (``FOLDER:6.1``).

    Status 1 when what is different would gate.
    """
    scope = replace(manifest.gate(project, manifest.load(project.images)), whole=True)
    left, right = (_result_set(project, name) for name in (first, second))
    if len(left) == 1 and len(right) == 1 and set(left) != set(right):
        # two kernels: one column, and that they are not the same needs no saying
        both = f"{next(iter(left))} -> {next(iter(right))}"
        left, right = (
            {both: replace(each, release="", version="", config="")} for of in (left, right) for each in of.values()
        )
    elif not set(left) & set(right):
        raise ManifestError(f"{first} and {second} have no kernel in common; compare two with FOLDER:KERNEL")
    only = [
        f"only in {name}: {kernel}"
        for name, of, other in ((first, left, right), (second, right, left))
        for kernel in of
        if kernel not in other
    ]
    both_have = {kernel: each for kernel, each in right.items() if kernel in left}
    changes = comparison.compare({kernel: left[kernel] for kernel in both_have}, both_have, scope)
    return Answer((*only, *_told(changes)), int(any(change.gates for change in changes)))


def _told(changes: Sequence[Change]) -> Iterator[str]:
    yield from comparison.lines(changes, _LISTED)
    yield comparison.summary(changes) or "no difference"


def _scope(project: Project, run: document.Document) -> comparison.Scope:
    return replace(manifest.gate(project, manifest.load(project.images)), whole=run.complete)


def _of(run: document.Document, kernels: set[str]) -> dict[str, Expectation]:
    return {kernel: each for kernel, each in baseline.of_document(run).items() if kernel in kernels}


def _result_set(project: Project, name: str) -> Mapping[str, Expectation]:
    place, _, kernel = (name, "", "") if Path(name).exists() else name.rpartition(":")
    if not place:
        place, kernel = name, ""
    found = (
        baseline.read(project.matrix_baselines)
        if place == BASELINE
        else baseline.of_document(document.read(Path(place)))
    )
    if kernel and kernel not in found:
        raise ManifestError(f"{place} has no kernel {kernel!r} (it has: {', '.join(found)})")
    return {kernel: found[kernel]} if kernel else found
