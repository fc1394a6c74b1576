"""A kernel of the manifest as files that virtme-ng boots, from the provider that its table names."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from kernel_matrix.config import manifest as manifests
from kernel_matrix.config.manifest import Kernel, Manifest
from kernel_matrix.images import image, providers
from kernel_matrix.images.image import KernelImage
from kernel_matrix.shared import hints


def load(folder: Path) -> Manifest:
    """Read the manifest in a folder, and have each kernel's provider check its table; raises ManifestError."""
    manifest = manifests.load(folder)
    for kernel in manifest.kernels:
        providers.of(manifest, kernel)
    return manifest


def kernel_image(manifest: Manifest, kernel: Kernel, *, locked_only: bool = False) -> KernelImage:
    """Return the image of a kernel, from the cache or made now; raises ImageError.

    ``locked_only``: where its provider has not what the lock says, that is an error, and nothing else is taken.
    """
    return providers.of(manifest, kernel).image(manifest, kernel, locked_only=locked_only)


def kernel_version(manifest: Manifest, kernel: Kernel) -> str:
    """Return which version of a kernel a run would take; empty where the lock is to say it and does not."""
    return providers.of(manifest, kernel).version(manifest, kernel)


def not_locked() -> str:
    """Say of a kernel of an archive that the lock has no package of it, and what locks it."""
    return f"not locked: `{hints.command('kernels', 'update')}` locks it once the archive has all of it"


def unlocked(manifest: Manifest, kernels: Iterable[Kernel]) -> tuple[str, ...]:
    """Return those of the kernels, by name, of which the lock is to say the version, and does not."""
    return tuple(kernel.name for kernel in kernels if not kernel_version(manifest, kernel))


def cached_kernel(manifest: Manifest, kernel: Kernel) -> KernelImage | None:
    """Return the image of a kernel if the cache has it and its name is known beforehand."""
    folder = providers.of(manifest, kernel).folder(manifest, kernel)
    return image.cached(folder, kernel.name) if folder else None


def kernel_key(manifest: Manifest, kernel: Kernel) -> str:
    """Return the name of a kernel's image in the cache, a digest of all that it is made of.

    Where that is not known beforehand (nothing is locked, or the kernel is the user's own), of what the manifest says.
    """
    folder = providers.of(manifest, kernel).folder(manifest, kernel)
    said = json.dumps([kernel.name, kernel.provider, kernel.keys], sort_keys=True, default=str)
    return folder.name if folder else image.key(manifest, [said])
