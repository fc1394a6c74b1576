"""What the jobs of a CI are, and what one of them found, as values that a workflow reads."""

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

#: jobs that GitHub makes of one matrix
_LIMIT = 256


@dataclass(frozen=True, slots=True)
class Job:
    """One job: a kernel, or one part of its tests."""

    #: of the job and of its artifact, such as ``6.1`` or ``6.1-2of4``
    name: str
    #: with all its variants
    kernel: str
    #: such as ``2/4``; all of it is ``1/1``, because only the results of shards can be merged
    shard: str


def plan(known: Manifest, names: Sequence[str], shards: int = 1) -> tuple[Job, ...]:
    """Return the jobs for the kernels of these names (none: core), ``shards`` for each; raises ManifestError."""
    if shards < 1:
        raise ManifestError(f"--shards {shards}: at least one job for each kernel is needed")
    jobs = []
    without = left_out(known, names)
    for kernel in manifest.select(known, names):
        if kernel.name in without:
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


def left_out(known: Manifest, names: Sequence[str]) -> tuple[str, ...]:
    """Return the kernels that a group among the names has and the lock has not: each night would be red for them.

    One that is named itself has its job. The merged report says which had none.
    """
    chosen = manifest.select(known, names)
    return images.unlocked(known, [kernel for kernel in chosen if kernel.name not in names])


def matrix(jobs: Iterable[Job]) -> str:
    """Return the jobs as a value of ``strategy.matrix``, one line of JSON."""
    return json.dumps({"include": [asdict(job) for job in jobs]})


def counts(run: Path) -> dict[str, int]:
    """Return how many cells of a run's folder are green and red; raises HarnessError."""
    cells = document.read(run).cells
    green = sum(cell.outcome.green for cell in cells)
    return {"green": green, "red": len(cells) - green}
