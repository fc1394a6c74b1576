"""The keys of a CI's caches, made from the names of images and snapshots in this project's cache.

A CI's cache is never changed once it is saved. A change of an image's name here must therefore change the key of the
cache that holds it; a restored image with another name costs time, but is never used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from kernel_matrix import images
from kernel_matrix.config.manifest import Kernel, Manifest
from kernel_matrix.images.cache import digest
from kernel_matrix.relay import accelerator
from kernel_matrix.relay.saved import snapshots
from kernel_matrix.vm.boot_spec import Accelerator, BootSpec

_KVM = Path("/dev/kvm")


def keys(manifest: Manifest, kernels: Sequence[Kernel]) -> dict[str, str]:
    """Return the keys of the caches ``root``, ``kernels`` and, once those images exist, ``snapshots``.

    A snapshot's name depends on the content of the images that its guest was booted from.
    """
    names = {
        "root": images.root_key(manifest),
        "kernels": digest(images.kernel_key(manifest, kernel) for kernel in kernels),
    }
    guests = [list(_guests(manifest, kernel)) for kernel in kernels]
    if all(guests):
        machine = accelerator.machine(_accelerator())
        names["snapshots"] = digest(snapshots.key(spec, machine) for specs in guests for spec in specs)
    return names


def _accelerator() -> Accelerator:
    """Return the likely accelerator; whether KVM works, only a probe boot can tell, which a key is not worth."""
    return Accelerator.KVM if os.access(_KVM, os.R_OK | os.W_OK) else Accelerator.TCG


def _guests(manifest: Manifest, kernel: Kernel) -> Iterator[BootSpec]:
    """Yield the boot specs of a kernel and its variants; none when an image is not in the cache."""
    root = images.cached_root(manifest)
    image = images.cached_kernel(manifest, kernel)
    if root is None or image is None:
        return
    appended = [(), *(variant.append for variant in manifest.variants if variant.changes(kernel))]
    for append in appended:
        yield BootSpec(
            vmlinuz=image.vmlinuz,
            modules=image.modules,
            root=root.path,
            accelerator=_accelerator(),
            append=append,
        )
