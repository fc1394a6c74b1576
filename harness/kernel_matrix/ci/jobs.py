"""The jobs of a CI, and the counts of a job's results, as values for a workflow."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kernel_matrix import images
from kernel_matrix.config import manifest
from kernel_matrix.config.manifest import Manifest
from kernel_matrix.results import document
from kernel_matrix.shared.errors import ManifestError

#: the limit of GitHub for the jobs of one matrix
_LIMIT = 256


@dataclass(frozen=True, slots=True)
class Job:
    """One job: a kernel, or one part of its tests."""

    #: the name of the job and of its artifact, such as ``6.1`` or ``6.1-2of4``
    name: str
    #: its kernel, with all variants
    kernel: str
    #: such as ``2/4``; ``1/1`` for all of it, because only the results of shards can be merged
    shard: str


def plan(kernel_manifest: Manifest, names: Sequence[str], shards: int = 1) -> tuple[Job, ...]:
    """Return the jobs for the kernels of these names (none: core), ``shards`` for each; raises ManifestError."""
    if shards < 1:
        raise ManifestError(f"--shards {shards}: at least one job for each kernel is needed")
    jobs = []
    jobless = left_out(kernel_manifest, names)
    for kernel in manifest.select(kernel_manifest, names):
        if kernel.name in jobless:
            continue
        if not re.fullmatch(r"[\w.-]+", kernel.name):
            raise ManifestError(f"kernel {kernel.name!r}: no name for a job (letters, digits, '_', '.' and '-')")
        for number in range(1, shards + 1):
            name = kernel.name if shards == 1 else f"{kernel.name}-{number}of{shards}"
            jobs.append(Job(name, kernel.name, f"{number}/{shards}"))
    if not jobs:
        raise ManifestError(f"{' '.join(names) or 'core'}: no kernel of it is locked, so there is nothing to test")
    if len(jobs) > _LIMIT:
        raise ManifestError(f"{len(jobs)} jobs: GitHub takes {_LIMIT} at most")
    return tuple(jobs)


def left_out(kernel_manifest: Manifest, names: Sequence[str]) -> tuple[str, ...]:
    """Return the kernels of named groups that are not locked: a scheduled run would always be red for them.

    A kernel that is named itself gets its job. The merged report names those without a job.
    """
    chosen = manifest.select(kernel_manifest, names)
    return images.unlocked(kernel_manifest, [kernel for kernel in chosen if kernel.name not in names])


def matrix(jobs: Iterable[Job]) -> str:
    """Return the jobs as a value for ``strategy.matrix``, one line of JSON."""
    return json.dumps({"include": [asdict(job) for job in jobs]})


def counts(run: Path) -> dict[str, int]:
    """Return how many cells of a run's folder are green and red; raises HarnessError."""
    cells = document.read(run).cells
    green = sum(cell.outcome.green for cell in cells)
    return {"green": green, "red": len(cells) - green}
