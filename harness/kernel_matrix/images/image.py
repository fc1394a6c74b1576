"""Build the image of a kernel in the cache from the files of any provider."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from kernel_matrix.config.manifest import Manifest
from kernel_matrix.images import vmlinux
from kernel_matrix.images.cache import building, cache_dir, digest, disk_errors, locked, run, used
from kernel_matrix.images.packages import unpack
from kernel_matrix.shared import wire

#: part of the cache's key: the version of this module's output
_FORMAT = "2"

#: Writes a kernel's files into an empty folder and returns the release: boot/vmlinuz-RELEASE, boot/config-RELEASE
#: (empty when there is none) and lib/modules/RELEASE.
Fill = Callable[[Path], str]


@dataclass(frozen=True, slots=True)
class KernelImage:
    """A kernel, ready to boot."""

    name: str
    #: ``uname -r``
    release: str
    #: the package's version, or the path of a user's own kernel
    version: str
    #: FOLDER/boot/vmlinuz-RELEASE, uncompressed if QEMU can start it; virtme-ng searches FOLDER/lib/modules/RELEASE
    #: beside it
    vmlinuz: Path
    #: erofs whose root is the content of lib/modules
    modules: Path
    config: Path
    #: remarks for the user, a line each
    notes: tuple[str, ...] = ()

    @property
    def config_digest(self) -> str:
        """The first twelve digits of the configuration's sha256; empty when its package is unavailable."""
        data = self.config.read_bytes()
        return hashlib.sha256(data).hexdigest()[:12] if data else ""


def key(manifest: Manifest, parts: Iterable[bytes | str]) -> str:
    """Return the name in the cache of an image that is built from these parts."""
    return digest([_FORMAT, *parts, *manifest.root.modules])


def folder(manifest: Manifest, parts: Iterable[bytes | str]) -> Path:
    """Return the cache folder, which may not exist yet, of the image that is built from these parts."""
    return cache_dir() / "kernels" / key(manifest, parts)


def cached(place: Path, kernel: str) -> KernelImage | None:
    """Return the image in a folder under a kernel's name; None when it has not been built."""
    try:
        image = wire.decode((place / "image.json").read_bytes(), KernelImage)
    except FileNotFoundError:
        return None
    used(place)
    return replace(_at(place, image), name=kernel)


def build(manifest: Manifest, target: Path, kernel: str, version: str, fill: Fill) -> KernelImage:
    """Return the image in the folder ``target``, and build it first if it is missing. Raises ImageError."""
    with locked(target.name):
        if image := cached(target, kernel):
            return replace(image, version=version)
        with building(target) as place, disk_errors(target):
            release = fill(place)
            unpack.keep_modules(place, release, manifest.root.modules)
            erofs(place / "lib" / "modules", place / "modules.erofs")
            image = _at(Path(), KernelImage(kernel, release, version, Path(), Path(), Path()))
            wire.write(place / "image.json", image)
    return _at(target, image)


def unpack_packages(debs: Iterable[Path], place: Path) -> str:
    """Unpack kernel packages into a folder, and decompress the kernel if QEMU can start it uncompressed."""
    release = unpack.unpack(debs, place)
    kernel = place / "boot" / f"vmlinuz-{release}"
    if elf := vmlinux.of(kernel.read_bytes()):
        kernel.write_bytes(elf)
    return release


def _at(place: Path, image: KernelImage) -> KernelImage:
    return replace(
        image,
        vmlinuz=place / "boot" / f"vmlinuz-{image.release}",
        modules=place / "modules.erofs",
        config=place / "boot" / f"config-{image.release}",
    )


def erofs(tree: Path, target: Path) -> None:
    """Make a read-only disk of a folder; everything on it belongs to root."""
    # -T0 and the fixed UUID make the image a function of its content
    run(
        ["mkfs.erofs", "-T0", "-U00000000-0000-0000-0000-000000000000", "--all-root", str(target), str(tree)],
        f"making {target.name}",
    )
