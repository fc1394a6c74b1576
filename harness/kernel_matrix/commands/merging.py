"""From the results of all shards of a run to those of the run: refused unless they are exactly one run's.

Runs of other kernels, divided or not (``--shard 1/1``), are part of it when they were asked for the same tests.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import msgspec
from rich.console import Console

from kernel_matrix import images
from kernel_matrix.config import manifest
from kernel_matrix.plan import sharding
from kernel_matrix.plan.sharding import Part
from kernel_matrix.report import reports, terminal
from kernel_matrix.report.run_folder import KernelFacts, RunDirectory, RunFacts, RunRecord, notes
from kernel_matrix.results import baseline, comparison, document, matrix
from kernel_matrix.results.document import Document
from kernel_matrix.shared import wire
from kernel_matrix.shared.cells import Outcome
from kernel_matrix.shared.changes import Change
from kernel_matrix.shared.errors import HarnessError, ManifestError
from kernel_matrix.shared.features import VARIANT, plain_kernel
from kernel_matrix.shared.project import Project

#: the status of a run that Ctrl-C ended
_INTERRUPTED = 2


@dataclass(frozen=True, slots=True)
class ShardResults:
    """What one shard has found."""

    #: as the user named it
    name: str
    folder: Path
    part: Part
    document: Document
    record: RunRecord


@dataclass(frozen=True, slots=True)
class Joined:
    """A run made of shards."""

    judged: matrix.Matrix
    facts: RunFacts
    changes: tuple[Change, ...]
    #: its folder
    folder: Path
    status: int = 0


def read(name: str) -> ShardResults:
    """Read a run's folder, or the latest of a folder of runs; raises ManifestError in one line."""
    folder = Path(name)
    if not (folder / document.NAME).exists() and (folder / "latest" / document.NAME).exists():
        folder /= "latest"
    # latest will be another
    folder = folder.resolve()
    try:
        found = document.read(folder)
        record = wire.decode((folder / "run.json").read_bytes(), RunRecord)
    except (HarnessError, OSError, msgspec.MsgspecError) as error:
        raise ManifestError(f"{name}: no results of a run ({error})") from error
    return ShardResults(name, folder, sharding.read(folder, name), found, record)


def check(shards: Sequence[ShardResults]) -> None:
    """Refuse what is not every shard of one run, or of runs of different kernels, once; raises ManifestError."""
    for one, other in pairwise(shards):
        _same_tests(one, other)
    by_kernels: dict[tuple[str, ...], list[ShardResults]] = {}
    owners: dict[str, ShardResults] = {}
    for each in shards:
        by_kernels.setdefault(each.part.kernels, []).append(each)
        for kernel in each.part.kernels:
            other = owners.setdefault(kernel, each)
            if other.part.kernels != each.part.kernels:
                ran = [" ".join(run.part.kernels) for run in (other, each)]
                raise ManifestError(f"{_different(other, each)}: on the kernels {ran[0]} and {ran[1]}")
    for run in by_kernels.values():
        _every_shard(run, "" if len(by_kernels) == 1 else f" of {' '.join(run[0].part.kernels)}")
    _no_doubles(shards)
    _same_kernels(shards)


def _every_shard(shards: Sequence[ShardResults], of: str) -> None:
    """Refuse what is not every shard of one run, once; ``of`` says of which."""
    for one, other in pairwise(shards):
        _same_run(one, other)
    by_index: dict[int, ShardResults] = {}
    for each in shards:
        before = by_index.setdefault(each.part.shard.index, each)
        if before is not each:
            raise ManifestError(f"shard {each.part.shard}{of} is there twice: {before.name} and {each.name}")
        if each.document.exit_status == _INTERRUPTED:
            raise ManifestError(f"shard {each.part.shard}{of} ({each.name}) was interrupted: run it again")
    count = shards[0].part.shard.count
    if missing := [f"{index}/{count}" for index in range(1, count + 1) if index not in by_index]:
        raise ManifestError(f"missing: shard {', '.join(missing)}{of}")


def _different(one: ShardResults, other: ShardResults) -> str:
    return f"{one.name} and {other.name} are of different runs"


def _same_tests(one: ShardResults, other: ShardResults) -> None:
    where = _different(one, other)
    if one.part.project != other.part.project:
        raise ManifestError(f"{where}: the project's files are not the same (another commit, or changed ones)")
    if one.part.selection != other.part.selection:
        ran = [" ".join(each.part.selection) for each in (one, other)]
        raise ManifestError(f"{where}: they were asked for '{ran[0]}' and '{ran[1]}'")


def _same_run(one: ShardResults, other: ShardResults) -> None:
    where = _different(one, other)
    if one.part.shard.count != other.part.shard.count:
        raise ManifestError(f"{where}: shards {one.part.shard} and {other.part.shard}")
    if one.part.division != other.part.division:
        raise ManifestError(f"{where}: they were divided in different ways")


def _no_doubles(shards: Iterable[ShardResults]) -> None:
    owners: dict[tuple[str, str], ShardResults] = {}
    for each in shards:
        for cell in each.document.cells:
            # a guest that did not boot, or a folder that could not be collected, is every shard's own
            if "::" in cell.test and owners.setdefault((cell.kernel, cell.test), each) is not each:
                other = owners[cell.kernel, cell.test].name
                raise ManifestError(f"{cell.kernel} {cell.test} is in two shards: {other} and {each.name}")


def _same_kernels(shards: Iterable[ShardResults]) -> None:
    """Refuse results of one kernel's name and two packages; a package that was not to be had has no release."""
    seen: dict[str, tuple[str, ShardResults]] = {}
    for each in shards:
        for column in each.document.columns:
            if not column.release:
                continue
            present = f"{column.release} ({column.version})"
            before, other = seen.setdefault(plain_kernel(column.kernel), (present, each))
            if before != present:
                kernel = plain_kernel(column.kernel)
                raise ManifestError(f"kernel {kernel} is {before} in {other.name} and {present} in {each.name}")


def _kernels(shards: Iterable[ShardResults]) -> tuple[str, ...]:
    """Return every guest of all shards, in the order of one run: those with a variant last."""
    kernels = dict.fromkeys(kernel for each in shards for kernel in each.part.kernels)
    return tuple(sorted(kernels, key=lambda kernel: VARIANT in kernel))


def join(shards: Sequence[ShardResults]) -> matrix.Matrix:
    """Judge what all shards have found as the whole run would have."""
    cells = [cell for each in shards for cell in each.document.cells]
    own: dict[str, set[str]] = {kernel: set() for kernel in _kernels(shards)}
    for cell in cells:
        if "::" in cell.test and cell.outcome is not Outcome.NOTRUN:
            own.setdefault(cell.kernel, set()).add(cell.test)
    left_out: dict[str, set[str]] = {}
    for each in shards:
        for kernel, tests in each.part.left_out.items():
            left_out.setdefault(kernel, set()).update(tests)
    expected = matrix.expected(own, left_out, named=shards[0].part.named)
    divided = {unit for each in shards for unit in each.part.units}
    there = [cell for cell in expected if sharding.unit_of(*cell) in divided]
    return matrix.Matrix.of(cells, there, _kernels(shards))


def _exit_status(joined: Joined, shards: Iterable[ShardResults]) -> int:
    """Return that of a run; where all is green, that of a shard that did not end so for what its cells do not show."""
    status = matrix.exit_status(joined.judged, joined.changes)
    verdicts = {each.document.exit_status for each in shards} - {1}
    return status or max(verdicts, default=0)


def _fill(shards: Sequence[ShardResults], judged: matrix.Matrix, run: RunDirectory) -> None:
    """Write what the shards' guests have left: cells, consoles, what tests recorded."""
    run.backdate(
        min(datetime.fromisoformat(each.document.started) for each in shards),
        max(each.document.seconds for each in shards),
    )
    for cell in judged.cells:
        if cell.outcome is not Outcome.NOTRUN:
            run.append(cell)
    for each in shards:
        _copy(each.folder, run)


def facts(shards: Sequence[ShardResults]) -> RunFacts:
    """Join what is known of the shards' runs."""
    known: dict[str, KernelFacts] = {}
    for each in shards:
        for kernel in each.record.facts.kernels:
            known.setdefault(kernel.name, kernel)
    accelerators = dict.fromkeys(each.document.accelerator for each in shards if each.document.accelerator)
    return RunFacts(
        accelerator="; ".join(accelerators),
        guests=sum(each.document.guests for each in shards),
        kernels=tuple(known[name] for name in _kernels(shards) if name in known),
        arguments=shards[0].part.selection,
        whole=all(each.document.whole for each in shards),
    )


def _copy(folder: Path, run: RunDirectory) -> None:
    for path in sorted((folder / "console").glob("*.log")):
        with run.console(path.stem).open("ab") as console:
            console.write(path.read_bytes())
    if (folder / "pcap").is_dir():
        shutil.copytree(folder / "pcap", run.path / "pcap", dirs_exist_ok=True)
    for path in sorted(folder.glob("*/*.json")):
        # what tests recorded; the guests' own folder is the controller's
        if not path.parent.name.startswith("guests-"):
            run.keep_facts(path.parent.name, path.stem, path.read_text())


def _hosts(part: Part, order: Mapping[str, int]) -> tuple[int, int]:
    """Return what a shard's place among all is by: the manifest's order of kernels, then its number."""
    first = min((order.get(plain_kernel(kernel), len(order)) for kernel in part.kernels), default=0)
    return first, part.shard.index


def merge(
    project: Project, names: Sequence[str], results: Path, expected: Path | None = None, kernels: Sequence[str] = ()
) -> Joined:
    """Join the shards in these folders into a run of ``results``; raises HarnessError.

    ``expected`` is a baseline, None the project's own. ``kernels`` are the names that the shards were planned for: what
    of them had no job is noted.
    """
    known_manifest = manifest.load(project.images)
    order = {kernel.name: number for number, kernel in enumerate(known_manifest.kernels)}
    shards = sorted((read(name) for name in names), key=lambda each: _hosts(each.part, order))
    check(shards)
    there = {plain_kernel(kernel) for kernel in _kernels(shards)}
    asked = manifest.select(known_manifest, kernels) if kernels else ()
    unlocked = images.unlocked(known_manifest, [kernel for kernel in asked if kernel.name not in there])
    left_out = tuple(f"{name}: no results, {images.not_locked()}" for name in unlocked)
    before = baseline.read(expected or project.matrix_baselines)
    run = RunDirectory.create(results, reports.of(project))
    judged, of_all = join(shards), replace(facts(shards), notes=left_out)
    _fill(shards, judged, run)
    found = run.document(judged, of_all)
    joined = Joined(judged, of_all, comparison.of_run(before, found, manifest.gate(project, known_manifest)), run.path)
    joined = replace(joined, status=_exit_status(joined, shards))
    found = replace(found, changes=joined.changes, exit_status=joined.status)
    run.finish(found, of_all, tuple(guest for each in shards for guest in each.record.guests))
    return joined


def show(
    project: Project, names: Sequence[str], results: Path, expected: Path | None = None, kernels: Sequence[str] = ()
) -> int:
    """Join shards as `merge` does and print the matrix; return the run's exit status."""
    joined = merge(project, names, results, expected, kernels)
    screen = Console(width=None if sys.stdout.isatty() else terminal.log_width(joined.judged))
    screen.print(terminal.render_table(joined.judged, joined.facts.releases))
    differences = comparison.baseline_lines(joined.changes, terminal.LISTED)
    lines = [*terminal.red_lines(joined.judged), matrix.summary_line(joined.judged.cells), *differences]
    noted = [f"note: {note}" for note in [*joined.facts.notes, *notes(joined.facts.kernels)]]
    for line in [*lines, *noted, f"results in {joined.folder}"]:
        print(line)
    return joined.status
