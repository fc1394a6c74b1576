"""``python -m kernel_matrix kernels``: kernels and their state, what was concluded of this machine, pruning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kernel_matrix import images
from kernel_matrix.config.manifest import Kernel, Manifest
from kernel_matrix.relay import accelerator, snapshots
from kernel_matrix.results import baseline
from kernel_matrix.shared import conclusions, marker
from kernel_matrix.shared.conclusions import KVM, Conclusion
from kernel_matrix.shared.project import Project

#: folders that are named in one line
_NAMED = 3


def listed(project: Project) -> Iterator[str]:
    """Yield the lines of the project's own manifest; raises ManifestError."""
    yield from lines(project, images.load(project.images))


def lines(project: Project, known: Manifest, kvm: Path = accelerator.KVM) -> Iterator[str]:
    """Yield a line for each kernel, and one for each conclusion that stands in the way of something."""
    recorded = set(baseline.read(project.matrix_baselines))
    for kernel in known.kernels:
        yield f"{kernel.name:10} {kernel.tier:9} {kernel.provider:7} {_state(known, kernel, recorded)}"
    held = [conclusion for _, conclusion in conclusions.held(images.cache_dir())]
    if (choice := accelerator.forbidden(kvm)) is not None:
        held = [Conclusion(KVM, choice.why, works=False, proven=True), *[each for each in held if each.about != KVM]]
    for conclusion in held:
        yield f"concluded of this machine: {conclusion}"


def _state(known: Manifest, kernel: Kernel, recorded: set[str]) -> str:
    version = images.kernel_version(known, kernel)
    missing = "" if kernel.name in recorded else "; no baseline"
    return f"{version or images.not_locked()}{missing}"


def update(project: Project) -> list[str]:
    """Move the lock to what the archive has now; return a line for each change. Raises ImageError."""
    return images.update_lock(images.load(project.images))


def prune(cache: Path | None = None) -> Iterator[str]:
    """Delete what the cache need not hold and forget what was concluded of this machine; say what that was."""
    cache = cache or images.cache_dir()
    saved = cache / "snapshots"
    guests, unused, forgotten = snapshots.prune(saved), images.prune(), conclusions.clear(cache)
    yield f"{len(guests)} saved guests and {len(unused)} unused images deleted; {snapshots.describe(saved)}"
    yield f"{forgotten} conclusions about this machine forgotten"
    left = [path for kind in ("kernels", "roots", "snapshots") for path in marker.unmarked(cache / kind)]
    if left:
        more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
        named = " ".join(str(path) for path in left[:_NAMED])
        yield f"left alone, because without {marker.NAME}: {named}{more} (an earlier version's can be deleted by hand)"
