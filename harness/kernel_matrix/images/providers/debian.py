"""Kernels of Debian's archive: the newest package of a series in a suite, pinned by the lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kernel_matrix.arch import CURRENT
from kernel_matrix.config.manifest import Kernel, Manifest
from kernel_matrix.images import headers, modules
from kernel_matrix.images import image as images
from kernel_matrix.images.cache import working
from kernel_matrix.images.image import KernelImage
from kernel_matrix.images.packages import lock as locks
from kernel_matrix.images.packages import unpack
from kernel_matrix.images.packages.archive import Package, Suite, find_deb
from kernel_matrix.shared.errors import ImageError, NotInArchive, NotWholeInArchive

_suites: dict[str, Suite] = {}


@dataclass(frozen=True, slots=True)
class Debian:
    """A kernel of Debian's archive; the fields are the keys of its table."""

    #: the archive's suite, such as ``bookworm-security``
    suite: str
    #: the upstream series, such as ``6.1``
    series: str
    #: the end of the package's name: the architecture, after ``rt-`` or ``cloud-`` for such kernels
    flavour: str = CURRENT.debian

    def version(self, manifest: Manifest, kernel: Kernel) -> str:
        """Return the version of the locked packages; empty when there are none."""
        packages = locks.packages(manifest.folder, kernel.name)
        return locks.version_of(packages) if packages else ""

    def folder(self, manifest: Manifest, kernel: Kernel) -> Path | None:
        """Return the folder of the locked packages' image; None when nothing is locked."""
        packages = locks.packages(manifest.folder, kernel.name)
        return _folder(manifest, packages) if packages else None

    def image(self, manifest: Manifest, kernel: Kernel, *, locked_only: bool) -> KernelImage:
        """Return the image, from the cache or built now; raises ImageError.

        When the mirror no longer has the locked version, or nothing is locked, use the newest of the same series and
        note it, unless ``locked_only``.
        """
        packages = locks.packages(manifest.folder, kernel.name)
        if packages and (image := images.cached(_folder(manifest, packages), kernel.name)):
            return image
        if packages and self._offers(packages):
            return self._build(manifest, kernel, packages)
        why = f"the mirror no longer has the locked {locks.version_of(packages)}" if packages else "it is not locked"
        if locked_only:
            raise ImageError(f"kernel {kernel.name}: {why}")
        try:
            newest = self.newest(kernel)
        except (NotInArchive, NotWholeInArchive) as error:
            raise ImageError(f"{error}; {why}") from error
        image = images.cached(_folder(manifest, newest), kernel.name) or self._build(manifest, kernel, newest)
        return replace(image, notes=(f"{why}: using {locks.version_of(newest)}",))

    def newest(self, kernel: Kernel) -> tuple[Package, ...]:
        """Return the packages of the series' newest release of which the mirror has every part.

        Raises NotInArchive and NotWholeInArchive, and ImageError when the mirror does not answer.
        """
        candidates = self._archive().packages(locks.image_pattern(self.series, self.flavour))
        if not candidates:
            raise NotInArchive(f"kernel {kernel.name}: the mirror has no {self.series} {self.flavour} in {self.suite}")
        lacking: set[str] = set()
        for package in sorted(candidates, key=lambda package: locks.release_key(package.name), reverse=True):
            parts = locks.parts_of(package)
            offered = self._named(parts)
            # linux-base contains the configuration, which no guest needs
            needed = {part for part in parts if not part.startswith("linux-base-")}
            missing = needed - {package.name for package in offered}
            if not missing:
                return offered
            lacking = lacking or missing
        raise NotWholeInArchive(
            f"kernel {kernel.name}: the mirror has no complete {self.series}: {', '.join(sorted(lacking))} is not there"
        )

    def headers_image(self, manifest: Manifest, kernel: Kernel, image: KernelImage, *, locked_only: bool) -> Path:
        """Return the headers of an image, from the cache or built now; raises ImageError.

        They are those of the image's own version, which need not be the locked one: no others describe its structs.
        NotInArchive: neither the lock nor the archive has any.
        """
        packages = locks.headers(manifest.folder, kernel.name)
        if locks.version_of(packages) != image.version:
            if locked_only:
                none = ImageError if packages else NotInArchive
                raise none(f"kernel {kernel.name}: no headers of {image.version} are locked")
            packages = self._headers_of_image(kernel, image, packages)
        target = headers.folder(sorted(f"{package.name} {package.sha256}" for package in packages))
        if path := headers.cached(target):
            return path
        if not self._offers(packages):
            raise ImageError(f"kernel {kernel.name}: the mirror no longer has the headers of {image.version}")

        def fill(tree: Path) -> None:
            with working(".download-", tree.parent) as download:
                self._archive().download(packages, download)
                unpack.unpack_headers([find_deb(download, package) for package in packages], tree)

        return headers.build(target, fill)

    def _headers_of_image(self, kernel: Kernel, image: KernelImage, locked: Sequence[Package]) -> tuple[Package, ...]:
        try:
            return self._headers_of(kernel, image.release, image.version)
        except NotInArchive as error:
            # an archive that had them lacks them for a while: a failure of today
            if locked:
                raise ImageError(str(error)) from error
            raise

    def all_modules(
        self, manifest: Manifest, kernel: Kernel, image: KernelImage, describe: modules.Describe
    ) -> modules.Modules:
        """Return all modules of an image, from the cache or made now of the packages of its version."""
        packages = locks.packages(manifest.folder, kernel.name)
        if locks.version_of(packages) != image.version:
            packages = self.newest(kernel)
        if locks.version_of(packages) != image.version or not self._offers(packages):
            raise ImageError(f"kernel {kernel.name}: the mirror no longer has the modules of {image.version}")
        target = modules.folder(sorted(f"{package.name} {package.sha256}" for package in packages))
        if kept := modules.cached(target):
            return kept

        def fill(tree: Path) -> str:
            with working(".download-", tree.parent) as download:
                self._archive().download(packages, download)
                return unpack.unpack([find_deb(download, package) for package in packages], tree)

        return modules.build(target, fill, describe)

    def newest_headers(self, kernel: Kernel, packages: Sequence[Package]) -> tuple[Package, ...]:
        """Return the packages of the headers of a kernel's packages; raises NotInArchive."""
        return self._headers_of(kernel, locks.release_of(packages), locks.version_of(packages))

    def _headers_of(self, kernel: Kernel, release: str, version: str) -> tuple[Package, ...]:
        own = self._named([f"linux-headers-{release}"])
        common = self._named([locks.common_headers(package) for package in own])
        found = tuple(package for package in (*own, *common) if package.version == version)
        if len(found) != 2:
            raise NotInArchive(f"kernel {kernel.name}: the mirror has no headers of {version} ({release})")
        return found

    def _archive(self) -> Suite:
        return _suites.setdefault(self.suite, Suite(self.suite))

    def _named(self, names: Sequence[str]) -> tuple[Package, ...]:
        if not names:
            return ()
        pattern = "|".join(name.replace("+", r"\+").replace(".", r"\.") for name in names)
        return self._archive().packages(pattern)

    def _offers(self, packages: Sequence[Package]) -> bool:
        offered = {package.name: package.version for package in self._named([package.name for package in packages])}
        return all(offered.get(package.name) == package.version for package in packages)

    def _build(self, manifest: Manifest, kernel: Kernel, packages: Sequence[Package]) -> KernelImage:
        def fill(place: Path) -> str:
            with working(".download-", place.parent) as download:
                self._archive().download(packages, download)
                return images.unpack_packages([find_deb(download, package) for package in packages], place)

        version = locks.version_of(packages)
        return images.build(manifest, _folder(manifest, packages), kernel.name, version, fill)


def _folder(manifest: Manifest, packages: Sequence[Package]) -> Path:
    return images.folder(manifest, sorted(f"{package.name} {package.sha256}" for package in packages))
