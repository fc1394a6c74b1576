"""The command ``kernels``: kernels and their state, conclusions about this machine, pruning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kernel_matrix import images
from kernel_matrix.config.manifest import Kernel, Manifest
from kernel_matrix.relay import accelerator
from kernel_matrix.relay.saved import snapshots
from kernel_matrix.results import baseline
from kernel_matrix.shared import conclusions, marker
from kernel_matrix.shared.conclusions import KVM
from kernel_matrix.shared.project import Project

#: folders that are named in a line
_NAMED = 3


def list_kernels(project: Project) -> Iterator[str]:
    """Yield the lines for the project's manifest; raises ManifestError."""
    yield from lines(project, images.load(project.images))


def lines(project: Project, manifest: Manifest, kvm: Path = accelerator.KVM) -> Iterator[str]:
    """Yield a line for each kernel, and one for each conclusion about this machine that prevents something."""
    recorded = set(baseline.read(project.matrix_baselines))
    for kernel in manifest.kernels:
        yield f"{kernel.name:10} {kernel.tier:9} {kernel.provider:7} {_state(manifest, kernel, recorded)}"
    cache = images.cache_dir()
    of_kvm = accelerator.concluded(cache, kvm)
    others = [conclusion for _, conclusion in conclusions.held(cache) if conclusion.about != KVM]
    # a kernel has a guest for each command line, and the reason is mostly the same
    for conclusion in dict.fromkeys([*([of_kvm] if of_kvm else []), *others]):
        yield f"concluded about this machine: {conclusion}"


def _state(manifest: Manifest, kernel: Kernel, recorded: set[str]) -> str:
    version = images.kernel_version(manifest, kernel)
    missing = "" if kernel.name in recorded else "; no baseline"
    return f"{version or images.not_locked()}{missing}"


def update(project: Project) -> list[str]:
    """Update the lock to the archive's packages; return a line for each change. Raises ImageError."""
    return images.update_lock(images.load(project.images))


def prune(cache: Path | None = None) -> Iterator[str]:
    """Delete unused files of the cache and the conclusions about this machine; yield lines about it."""
    cache = cache or images.cache_dir()
    saved = cache / "snapshots"
    guests, unused, forgotten = snapshots.prune(saved), images.prune(), conclusions.clear(cache)
    yield f"{len(guests)} saved guests and {len(unused)} unused images deleted; {snapshots.describe(saved)}"
    yield f"{forgotten} conclusions about this machine forgotten"
    left = [path for kind in ("kernels", "roots", "snapshots") for path in marker.unmarked(cache / kind)]
    if left:
        more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
        named = " ".join(str(path) for path in left[:_NAMED])
        yield f"not deleted, without {marker.NAME}: {named}{more} (those of an earlier version can be deleted by hand)"
