"""A provider outside the engine: the kernel packages of a folder, such as those of ``make bindeb-pkg``.

``provider = "deb_folder:DebFolder"`` and ``path = "FOLDER"`` in a kernel's table.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.config.manifest import Kernel, Manifest
from kernel_matrix.images import KernelImage, image
from kernel_matrix.images.packages.archive import Package
from kernel_matrix.shared.errors import ImageError


@dataclass(frozen=True, slots=True)
class DebFolder:
    """A kernel whose packages are in a folder; the fields are the keys of its table."""

    #: relative to the manifest's folder
    path: str

    def _debs(self, manifest: Manifest) -> list[Path]:
        return sorted((manifest.folder / self.path).glob("*.deb"))

    def version(self, manifest: Manifest, kernel: Kernel) -> str:
        """Return the folder, in place of a version."""
        return self.path

    def folder(self, manifest: Manifest, kernel: Kernel) -> Path | None:
        """Return the image's folder, whose name depends on the packages."""
        digests = [hashlib.sha256(deb.read_bytes()).hexdigest() for deb in self._debs(manifest)]
        return image.folder(manifest, digests) if digests else None

    def image(self, manifest: Manifest, kernel: Kernel, *, locked_only: bool) -> KernelImage:
        """Return the image, built from the packages unless it is in the cache."""
        target = self.folder(manifest, kernel)
        if target is None:
            raise ImageError(f"kernel {kernel.name}: no package in {manifest.folder / self.path}")
        debs = self._debs(manifest)
        return image.build(manifest, target, kernel.name, self.path, lambda folder: image.unpack_packages(debs, folder))

    def newest(self, kernel: Kernel) -> tuple[Package, ...]:
        """Return none: nothing is locked."""
        return ()
