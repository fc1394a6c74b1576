"""Get the image of a manifest's kernel from the provider that its table names."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from kernel_matrix.config import manifest as manifests
from kernel_matrix.config.manifest import Kernel, Manifest
from kernel_matrix.images import image, modules, providers
from kernel_matrix.images.image import KernelImage
from kernel_matrix.images.modules import Modules
from kernel_matrix.shared import hints
from kernel_matrix.shared.errors import ImageError


def load(folder: Path) -> Manifest:
    """Read the manifest in a folder, and let each kernel's provider check its table; raises ManifestError."""
    manifest = manifests.load(folder)
    for kernel in manifest.kernels:
        providers.of(manifest, kernel)
    return manifest


def kernel_image(manifest: Manifest, kernel: Kernel, *, locked_only: bool = False) -> KernelImage:
    """Return the image of a kernel, from the cache or built now; raises ImageError.

    ``locked_only``: fail when the provider does not have the locked packages, instead of using others.
    """
    return providers.of(manifest, kernel).image(manifest, kernel, locked_only=locked_only)


def kernel_headers(manifest: Manifest, kernel: Kernel, image: KernelImage, *, locked_only: bool = False) -> Path:
    """Return an erofs with the headers of a kernel's image, for a loader that compiles in the guest.

    It has ``include`` and ``arch``. Raises ImageError when the kernel's provider has none; ``locked_only`` as above.
    """
    provider = providers.of(manifest, kernel)
    if not isinstance(provider, providers.HasHeaders):
        raise ImageError(f"kernel {kernel.name}: provider {kernel.provider} has no headers")
    return provider.headers_image(manifest, kernel, image, locked_only=locked_only)


def kernel_modules(manifest: Manifest, kernel: Kernel, image: KernelImage, describe: modules.Describe) -> Modules:
    """Return all modules of a kernel's image; raises ImageError when its provider has none.

    ``describe`` returns the names that a module has, by which it is found.
    """
    provider = providers.of(manifest, kernel)
    if not isinstance(provider, providers.HasModules):
        raise ImageError(f"kernel {kernel.name}: provider {kernel.provider} has no further modules")
    return provider.all_modules(manifest, kernel, image, describe)


def kernel_version(manifest: Manifest, kernel: Kernel) -> str:
    """Return the version of a kernel that a run would use; empty when it must be locked and is not."""
    return providers.of(manifest, kernel).version(manifest, kernel)


def not_locked() -> str:
    """Return the message for a kernel that is not locked, with the command that locks it."""
    return f"not locked: `{hints.command('kernels', 'update')}` locks it once the archive has all of it"


def unlocked(manifest: Manifest, kernels: Iterable[Kernel]) -> tuple[str, ...]:
    """Return the names of the kernels that must be locked and are not."""
    return tuple(kernel.name for kernel in kernels if not kernel_version(manifest, kernel))


def cached_kernel(manifest: Manifest, kernel: Kernel) -> KernelImage | None:
    """Return the image of a kernel if its name in the cache is known and the cache has it."""
    folder = providers.of(manifest, kernel).folder(manifest, kernel)
    return image.cached(folder, kernel.name) if folder else None


def kernel_key(manifest: Manifest, kernel: Kernel) -> str:
    """Return the name of a kernel's image in the cache, a digest of its content.

    When the content is unknown (nothing is locked, or the kernel is the user's own), digest the manifest's entry.
    """
    folder = providers.of(manifest, kernel).folder(manifest, kernel)
    entry = json.dumps([kernel.name, kernel.provider, kernel.keys], sort_keys=True, default=str)
    return folder.name if folder else image.key(manifest, [entry])
