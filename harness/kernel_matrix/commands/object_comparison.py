"""The command ``compare`` for two builds of an object: what the new one needs more, and what runs measured of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kernel_matrix.commands import compatibility
from kernel_matrix.commands.baseline_view import CommandOutput
from kernel_matrix.config import manifest
from kernel_matrix.objects import build
from kernel_matrix.report import compatibility_page
from kernel_matrix.results import comparison, document
from kernel_matrix.results.baseline import Expectation
from kernel_matrix.shared.bpf.compatibility import Compatibility, Need
from kernel_matrix.shared.bpf.costs import COMPARED, Cost
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.project import Project

#: kernel -> program -> what it costs
Costs = Mapping[str, Mapping[str, Cost]]


@dataclass(frozen=True, slots=True)
class _Measured:
    """What the newest run with an object measured of its programs."""

    #: the run's folder; empty: no run has that object, or measured its costs
    run: str
    costs: Costs


def objects(first: str, second: str) -> tuple[Path, Path] | None:
    """Return the arguments as objects; None: they are result sets. One of each is a ManifestError."""
    are = [_is_object(Path(name)) for name in (first, second)]
    if all(are):
        return Path(first), Path(second)
    if any(are):
        raise ManifestError(f"{first} and {second}: two objects can be compared, or two result sets")
    return None


def _is_object(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def compare(project: Project, first: Path, second: Path) -> CommandOutput:
    """Compare two builds; status 1 where a cost has grown by more than the gate allows. Raises HarnessError."""
    pages = [compatibility.of_object(project, build.checked(path), []) for path in (first, second)]
    measured = [_measured(project, page) for page in pages]
    lines = [*_derived(*pages), *_costs(first, second, *measured)]
    scope = replace(manifest.gate(project, manifest.load(project.images)), whole=False)
    before, after = (
        {kernel: Expectation("", "", "", costs=costs) for kernel, costs in one.costs.items()} for one in measured
    )
    common = {kernel: costs for kernel, costs in after.items() if kernel in before}
    changes = comparison.compare({kernel: before[kernel] for kernel in common}, common, scope)
    return CommandOutput(tuple(lines), int(any(change.gates for change in changes)))


def _measured(project: Project, page: Compatibility) -> _Measured:
    """Return the costs of an object's programs from the newest run that had the object: by its content."""
    programs = {program.name for program in page.programs}
    runs = (path for path in project.results.glob(f"*/{document.NAME}") if not path.parent.is_symlink())
    for path in sorted(runs, reverse=True):
        run = document.read(path)
        same = [one for one in run.objects if one.sha256 == page.sha256]
        kernels = {kernel for one in same for kernel in one.kernels}
        # a test names a program, the cell of an object the object, too
        names = {name: name for name in programs} | {f"{one.name}::{name}": name for one in same for name in programs}
        costs = {
            column.kernel: {names[name]: cost for name, cost in column.costs.items() if name in names}
            for column in run.columns
            if column.kernel in kernels
        }
        if any(costs.values()):
            return _Measured(project.relative(path.parent), costs)
    return _Measured("", {})


def _derived(first: Compatibility, second: Compatibility) -> Iterator[str]:
    """Yield what the files of both objects, and of the kernels, say of the difference."""
    names = [{program.name for program in page.programs} for page in (first, second)]
    yield from (f"program gone: {name}" for name in sorted(names[0] - names[1]))
    yield from (f"program new: {name}" for name in sorted(names[1] - names[0]))
    for program in sorted(names[0] & names[1]):
        needs = [
            {f"{one.need} {one.name}" for one in page.of_program(program) if one.need is not Need.RELOCATION}
            for page in (first, second)
        ]
        yield from (f"{program}: needs no more: {need}" for need in sorted(needs[0] - needs[1]))
        yield from (f"{program}: needs now: {need}" for need in sorted(needs[1] - needs[0]))
        for kernel in second.kernels:
            was, is_ = (compatibility_page.status(page, program, kernel.name) for page in (first, second))
            if was != is_:
                yield f"{kernel.name}: {program}: {was} -> {is_}"


def _costs(first: Path, second: Path, before: _Measured, after: _Measured) -> Iterator[str]:
    """Yield a line for each program and kernel whose measured costs differ, or why there are none."""
    for path, one in ((first, before), (second, after)):
        how = f"measured by {one.run}" if one.run else "costs not measured: no run here has that object"
        yield f"{path}: {how}"
    for kernel in (kernel for kernel in after.costs if kernel in before.costs):
        for program in (name for name in after.costs[kernel] if name in before.costs[kernel]):
            was, is_ = before.costs[kernel][program], after.costs[kernel][program]
            pairs = [(name, getattr(was, name), getattr(is_, name)) for name in COMPARED]
            if parts := [f"{name} {old:,} -> {new:,}" for name, old, new in pairs if old != new]:
                yield f"{kernel}: {program}: {', '.join(parts)}"
