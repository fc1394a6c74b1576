"""By what a CI's caches are named: what the names of images and snapshots in this project's own cache are made of.

A cache of a CI is never changed once it is saved. Whatever changes an image's name here must therefore change the
name of the cache that holds it; what is restored under a name that is not asked for costs time, but is never used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from kernel_matrix import images
from kernel_matrix.config.manifest import Kernel, Manifest
from kernel_matrix.images.cache import digest
from kernel_matrix.relay import accelerator, snapshots
from kernel_matrix.vm.boot_spec import Accelerator, BootSpec

_KVM = Path("/dev/kvm")


def keys(known: Manifest, kernels: Sequence[Kernel]) -> dict[str, str]:
    """Return the names by what they are for: ``root``, ``kernels`` and, once those are in the cache, ``snapshots``.

    A snapshot is named by the content of the images its guest was booted from.
    """
    found = {
        "root": images.root_key(known),
        "kernels": digest(images.kernel_key(known, kernel) for kernel in kernels),
    }
    guests = [list(_guests(known, kernel)) for kernel in kernels]
    if all(guests):
        machine = accelerator.machine(_accelerator())
        found["snapshots"] = digest(snapshots.key(spec, machine) for specs in guests for spec in specs)
    return found


def _accelerator() -> Accelerator:
    """Say what guests may be run with; whether KVM does work only a probe boot can tell, which no name is worth."""
    return Accelerator.KVM if os.access(_KVM, os.R_OK | os.W_OK) else Accelerator.TCG


def _guests(known: Manifest, kernel: Kernel) -> Iterator[BootSpec]:
    """Yield the guests of a kernel, its own and those with a variant; none when an image is not in the cache."""
    root = images.cached_root(known)
    image = images.cached_kernel(known, kernel)
    if root is None or image is None:
        return
    appended = [(), *(variant.append for variant in known.variants if variant.changes(kernel))]
    for append in appended:
        yield BootSpec(
            vmlinuz=image.vmlinuz,
            modules=image.modules,
            root=root.path,
            accelerator=_accelerator(),
            append=append,
        )
