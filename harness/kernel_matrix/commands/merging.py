"""Merge the results of all shards of a run; refuse them unless they are exactly those of one run.

Runs of different kernels, divided or not (``--shard 1/1``), are merged when they ran the same selection of tests.
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

from kernel_matrix import images
from kernel_matrix.config import manifest
from kernel_matrix.plan import evidence, sharding
from kernel_matrix.plan.sharding import Part
from kernel_matrix.report import reports, terminal
from kernel_matrix.report.run_folder import KernelFacts, RunDirectory, RunFacts, RunRecord, notes
from kernel_matrix.results import baseline, comparison, document, matrix
from kernel_matrix.results.changes import Change
from kernel_matrix.results.document import Document
from kernel_matrix.results.evidence import Digest
from kernel_matrix.shared import wire
from kernel_matrix.shared.errors import HarnessError, ManifestError
from kernel_matrix.shared.outcomes.cells import Outcome
from kernel_matrix.shared.outcomes.features import VARIANT, plain_kernel
from kernel_matrix.shared.project import Project

#: the status of a run that Ctrl-C ended
_INTERRUPTED = 2


@dataclass(frozen=True, slots=True)
class ShardResults:
    """The results of one shard."""

    #: the folder as the user wrote it
    name: str
    folder: Path
    part: Part
    document: Document
    record: RunRecord


@dataclass(frozen=True, slots=True)
class MergedRun:
    """A run made of shards."""

    judged: matrix.Matrix
    facts: RunFacts
    changes: tuple[Change, ...]
    #: its folder
    folder: Path
    status: int = 0


def read(name: str) -> ShardResults:
    """Read a run's folder, or the latest run in a folder; raises ManifestError in one line."""
    folder = Path(name)
    if not (folder / document.NAME).exists() and (folder / "latest" / document.NAME).exists():
        folder /= "latest"
    # the merged run will be the latest
    folder = folder.resolve()
    try:
        result = document.read(folder)
        record = wire.decode((folder / "run.json").read_bytes(), RunRecord)
    except (HarnessError, OSError, msgspec.MsgspecError) as error:
        raise ManifestError(f"{name}: no results of a run ({error})") from error
    return ShardResults(name, folder, sharding.read(folder, name), result, record)


def check(shards: Sequence[ShardResults]) -> None:
    """Refuse all but the complete shards, once, of one run or of runs of different kernels; raises ManifestError."""
    for first, second in pairwise(shards):
        _same_tests(first, second)
    by_kernels: dict[tuple[str, ...], list[ShardResults]] = {}
    owners: dict[str, ShardResults] = {}
    for shard in shards:
        by_kernels.setdefault(shard.part.kernels, []).append(shard)
        for kernel in shard.part.kernels:
            owner = owners.setdefault(kernel, shard)
            if owner.part.kernels != shard.part.kernels:
                ran = [" ".join(run.part.kernels) for run in (owner, shard)]
                raise ManifestError(f"{_different(owner, shard)}: on the kernels {ran[0]} and {ran[1]}")
    for run in by_kernels.values():
        _every_shard(run, "" if len(by_kernels) == 1 else f" of {' '.join(run[0].part.kernels)}")
    _no_doubles(shards)
    _same_kernels(shards)


def _every_shard(shards: Sequence[ShardResults], of: str) -> None:
    """Refuse all but the complete shards, once, of one run; ``of`` is the end of the message that names the run."""
    for first, second in pairwise(shards):
        _same_run(first, second)
    by_index: dict[int, ShardResults] = {}
    for shard in shards:
        before = by_index.setdefault(shard.part.shard.index, shard)
        if before is not shard:
            raise ManifestError(f"shard {shard.part.shard}{of} appears twice: {before.name} and {shard.name}")
        if shard.document.exit_status == _INTERRUPTED:
            raise ManifestError(f"shard {shard.part.shard}{of} ({shard.name}) was interrupted: run it again")
    count = shards[0].part.shard.count
    if missing := [f"{index}/{count}" for index in range(1, count + 1) if index not in by_index]:
        raise ManifestError(f"missing: shard {', '.join(missing)}{of}")


def _different(first: ShardResults, second: ShardResults) -> str:
    return f"{first.name} and {second.name} are of different runs"


def _same_tests(first: ShardResults, second: ShardResults) -> None:
    where = _different(first, second)
    if first.part.project != second.part.project:
        raise ManifestError(f"{where}: the project's files are not the same (another commit, or changed ones)")
    if first.part.selection != second.part.selection:
        ran = [" ".join(shard.part.selection) for shard in (first, second)]
        raise ManifestError(f"{where}: they were asked for '{ran[0]}' and '{ran[1]}'")


def _same_run(first: ShardResults, second: ShardResults) -> None:
    where = _different(first, second)
    if first.part.shard.count != second.part.shard.count:
        raise ManifestError(f"{where}: shards {first.part.shard} and {second.part.shard}")
    if first.part.division != second.part.division:
        raise ManifestError(f"{where}: they were divided in different ways")


def _no_doubles(shards: Iterable[ShardResults]) -> None:
    owners: dict[tuple[str, str], ShardResults] = {}
    for shard in shards:
        for cell in shard.document.cells:
            # every shard has a cell of its own for a guest that did not boot or a folder that could not be collected
            if "::" in cell.test and owners.setdefault((cell.kernel, cell.test), shard) is not shard:
                owner = owners[cell.kernel, cell.test].name
                raise ManifestError(f"{cell.kernel} {cell.test} is in two shards: {owner} and {shard.name}")


def _same_kernels(shards: Iterable[ShardResults]) -> None:
    """Refuse results of one kernel from two packages; an unavailable package has no release."""
    seen: dict[str, tuple[str, ShardResults]] = {}
    for shard in shards:
        for column in shard.document.columns:
            if not column.release:
                continue
            present = f"{column.release} ({column.version})"
            before, owner = seen.setdefault(plain_kernel(column.kernel), (present, shard))
            if before != present:
                kernel = plain_kernel(column.kernel)
                raise ManifestError(f"kernel {kernel} is {before} in {owner.name} and {present} in {shard.name}")


def _kernels(shards: Iterable[ShardResults]) -> tuple[str, ...]:
    """Return every guest of all shards, in the order of one run: those with a variant last."""
    kernels = dict.fromkeys(kernel for shard in shards for kernel in shard.part.kernels)
    return tuple(sorted(kernels, key=lambda kernel: VARIANT in kernel))


def join(shards: Sequence[ShardResults]) -> matrix.Matrix:
    """Join the shards' cells into the matrix of the whole run."""
    cells = [cell for shard in shards for cell in shard.document.cells]
    collected: dict[str, set[str]] = {kernel: set() for kernel in _kernels(shards)}
    for cell in cells:
        if "::" in cell.test and cell.outcome is not Outcome.NOTRUN:
            collected.setdefault(cell.kernel, set()).add(cell.test)
    left_out: dict[str, set[str]] = {}
    for shard in shards:
        for kernel, tests in shard.part.left_out.items():
            left_out.setdefault(kernel, set()).update(tests)
    expected = matrix.expected(collected, left_out, named=shards[0].part.named)
    divided = {unit for shard in shards for unit in shard.part.units}
    there = [cell for cell in expected if sharding.unit_of(*cell) in divided]
    return matrix.Matrix.of(cells, there, _kernels(shards))


def _exit_status(joined: MergedRun, shards: Iterable[ShardResults]) -> int:
    """Return the status of a run; where its cells are green, that of a shard that failed for another reason."""
    status = matrix.exit_status(joined.judged, joined.changes)
    verdicts = {shard.document.exit_status for shard in shards} - {1}
    return status or max(verdicts, default=0)


def _fill(shards: Sequence[ShardResults], judged: matrix.Matrix, run: RunDirectory) -> None:
    """Write the shards' cells, consoles, and what their tests recorded."""
    run.backdate(
        min(datetime.fromisoformat(shard.document.started) for shard in shards),
        max(shard.document.seconds for shard in shards),
    )
    for cell in judged.cells:
        if cell.outcome is not Outcome.NOTRUN:
            run.append(cell)
    for shard in shards:
        _copy(shard.folder, run)


def facts(shards: Sequence[ShardResults]) -> RunFacts:
    """Join the facts of the shards' runs."""
    by_name: dict[str, KernelFacts] = {}
    for shard in shards:
        for kernel in shard.record.facts.kernels:
            first = by_name.setdefault(kernel.name, kernel)
            by_name[kernel.name] = replace(first, digests=_union([first.digests, kernel.digests]))
    accelerators = dict.fromkeys(shard.document.accelerator for shard in shards if shard.document.accelerator)
    return RunFacts(
        accelerator="; ".join(accelerators),
        guests=sum(shard.document.guests for shard in shards),
        kernels=tuple(by_name[name] for name in _kernels(shards) if name in by_name),
        arguments=shards[0].part.selection,
        whole=all(shard.document.whole for shard in shards),
        notes=_joined(shard.record.facts.notes for shard in shards),
        loaders=_joined(shard.record.facts.loaders for shard in shards),
        left_out=_joined(shard.record.facts.left_out for shard in shards),
        objects=evidence.joined(one for shard in shards for one in shard.record.facts.objects),
        configuration=_union(shard.record.facts.configuration for shard in shards),
    )


def _joined(lines: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """Return each of them once, in their order."""
    return tuple(dict.fromkeys(line for of_one in lines for line in of_one))


def _union(digests: Iterable[Iterable[Digest]]) -> tuple[Digest, ...]:
    """Return each of them once, in their order; two shards with different files have both."""
    return tuple(dict.fromkeys(one for of_one in digests for one in of_one))


def _copy(folder: Path, run: RunDirectory) -> None:
    for path in sorted((folder / "console").glob("*.log")):
        with run.console(path.stem).open("ab") as console:
            console.write(path.read_bytes())
    if (folder / "pcap").is_dir():
        shutil.copytree(folder / "pcap", run.path / "pcap", dirs_exist_ok=True)
    for path in sorted(folder.glob("*/*.json")):
        # what tests recorded; the guests' folder is the controller's
        if not path.parent.name.startswith("guests-"):
            run.keep_facts(path.parent.name, path.stem, path.read_text())


def _sort_key(part: Part, order: Mapping[str, int]) -> tuple[int, int]:
    """Return the key by which shards are sorted: the manifest's order of kernels, then the shard's number."""
    first = min((order.get(plain_kernel(kernel), len(order)) for kernel in part.kernels), default=0)
    return first, part.shard.index


def merge(
    project: Project, names: Sequence[str], results: Path, expected: Path | None = None, kernels: Sequence[str] = ()
) -> MergedRun:
    """Join the shards in these folders into a run of ``results``; raises HarnessError.

    ``expected`` is the folder of a baseline, None: the project's. ``kernels`` are the names that the shards were
    planned for: a note names those that had no job.
    """
    kernel_manifest = manifest.load(project.images)
    order = {kernel.name: number for number, kernel in enumerate(kernel_manifest.kernels)}
    shards = sorted((read(name) for name in names), key=lambda shard: _sort_key(shard.part, order))
    check(shards)
    there = {plain_kernel(kernel) for kernel in _kernels(shards)}
    chosen = manifest.select(kernel_manifest, kernels) if kernels else ()
    unlocked = images.unlocked(kernel_manifest, [kernel for kernel in chosen if kernel.name not in there])
    left_out = tuple(f"{name}: no results, {images.not_locked()}" for name in unlocked)
    before = baseline.read(expected or project.matrix_baselines)
    run = RunDirectory.create(results, reports.of(project))
    judged, of_all = join(shards), facts(shards)
    of_all = replace(of_all, notes=(*of_all.notes, *left_out))
    _fill(shards, judged, run)
    result = run.document(judged, of_all)
    joined = MergedRun(
        judged, of_all, comparison.of_run(before, result, manifest.gate(project, kernel_manifest)), run.path
    )
    joined = replace(joined, status=_exit_status(joined, shards))
    result = replace(result, changes=joined.changes, exit_status=joined.status)
    run.finish(result, of_all, tuple(guest for shard in shards for guest in shard.record.guests))
    return joined


def show(
    project: Project, names: Sequence[str], results: Path, expected: Path | None = None, kernels: Sequence[str] = ()
) -> int:
    """Join shards as `merge` does and print the matrix; return the run's exit status."""
    joined = merge(project, names, results, expected, kernels)
    screen = terminal.Screen(width=None if sys.stdout.isatty() else terminal.log_width(joined.judged))
    screen.print(terminal.render_table(joined.judged, joined.facts.releases, joined.facts.loaders))
    differences = comparison.baseline_lines(joined.changes, terminal.LISTED)
    lines = [*terminal.red_lines(joined.judged), matrix.summary_line(joined.judged.cells), *differences]
    noted = [f"note: {note}" for note in [*joined.facts.notes, *notes(joined.facts.kernels)]]
    for line in [*lines, *noted, f"results in {joined.folder}"]:
        print(line)
    return joined.status
