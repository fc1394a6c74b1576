"""A kernel of the manifest as files that virtme-ng boots."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kernel_matrix.config.manifest import Kernel, Manifest
from kernel_matrix.images import lock as locks
from kernel_matrix.images import unpack, vmlinux
from kernel_matrix.images.archive import Package, Suite, find_deb
from kernel_matrix.images.cache import building, cache_dir, digest, disk_errors, locked, run, used, working
from kernel_matrix.shared import hints, wire
from kernel_matrix.shared.errors import ImageError, ManifestError, NotInArchive, NotWholeInArchive

#: part of the cache's key: what this module makes of a package
_FORMAT = "2"


@dataclass(frozen=True, slots=True)
class KernelImage:
    """A kernel, ready to boot."""

    name: str
    #: ``uname -r``
    release: str
    #: the package's version; the path of a kernel of the user's own
    version: str
    #: FOLDER/boot/vmlinuz-RELEASE, uncompressed where QEMU can start it so; virtme-ng looks for
    #: FOLDER/lib/modules/RELEASE beside it
    vmlinuz: Path
    #: erofs whose root is the content of lib/modules
    modules: Path
    config: Path
    #: what the user should know, a line each
    notes: tuple[str, ...] = ()

    @property
    def config_digest(self) -> str:
        """The first twelve digits of the configuration's sha256; empty where its package is not to be had."""
        data = self.config.read_bytes()
        return hashlib.sha256(data).hexdigest()[:12] if data else ""


_suites: dict[str, Suite] = {}


def _suite(name: str) -> Suite:
    return _suites.setdefault(name, Suite(name))


def kernel_image(manifest: Manifest, kernel: Kernel, *, locked_only: bool = False) -> KernelImage:
    """Return the image of a kernel, from the cache or made now; raises ImageError.

    When the mirror no longer has the locked version, or nothing is locked, the newest of the same series is used and
    noted, unless ``locked_only``.
    """
    if kernel.provider == "path":
        return _own_kernel(manifest, kernel)
    packages = locks.read(manifest.folder / locks.NAME).get(kernel.name, ())
    if packages and (image := _cached(manifest, kernel, packages)):
        return image
    if packages:
        offered = {package.name: package for package in _offered(kernel, [package.name for package in packages])}
        if all(package.name in offered and offered[package.name].version == package.version for package in packages):
            return _made(manifest, kernel, packages)
    why = f"the mirror no longer has the locked {locks.version_of(packages)}" if packages else "it is not locked"
    if locked_only:
        raise ImageError(f"kernel {kernel.name}: {why}")
    try:
        newest = newest_packages(kernel)
    except (NotInArchive, NotWholeInArchive) as error:
        raise ImageError(f"{error}; {why}") from error
    note = f"{why}: using {locks.version_of(newest)}"
    image = _cached(manifest, kernel, newest) or _made(manifest, kernel, newest)
    return replace(image, notes=(note,))


def not_locked() -> str:
    """Say of a kernel of an archive that the lock has no package of it, and what locks it."""
    return f"not locked: `{hints.command('kernels', 'update')}` locks it once the archive has all of it"


def unlocked(manifest: Manifest, kernels: Iterable[Kernel]) -> tuple[str, ...]:
    """Return those of the kernels, by name, that come from an archive and that the lock has no package of."""
    locked = locks.read(manifest.folder / locks.NAME)
    return tuple(each.name for each in kernels if each.provider == "debian" and each.name not in locked)


def locked_version(manifest: Manifest, kernel: Kernel) -> str:
    """Return the version of a kernel's locked package; empty when there is none."""
    packages = locks.read(manifest.folder / locks.NAME).get(kernel.name, ())
    return locks.version_of(packages) if packages else ""


def cached_kernel(manifest: Manifest, kernel: Kernel) -> KernelImage | None:
    """Return the image of a locked kernel if the cache has it."""
    packages = locks.read(manifest.folder / locks.NAME).get(kernel.name, ())
    return _cached(manifest, kernel, packages) if packages and kernel.provider == "debian" else None


def kernel_key(manifest: Manifest, kernel: Kernel) -> str:
    """Return the name of a kernel's image in the cache, a digest of all that it is made of.

    Where it has no name beforehand (nothing is locked, or the kernel is the user's own), what the manifest says of it.
    """
    packages = locks.read(manifest.folder / locks.NAME).get(kernel.name, ())
    if packages and kernel.provider == "debian":
        return _folder(manifest, packages).name
    return digest([_FORMAT, repr(kernel), *manifest.root.modules])


def newest_packages(kernel: Kernel) -> tuple[Package, ...]:
    """Return the packages of the series' newest release of which the mirror has every part.

    Raises NotInArchive and NotWholeInArchive, and ImageError when the mirror does not answer.
    """
    images = _suite(kernel.suite).packages(locks.image_pattern(kernel.series, kernel.flavour))
    if not images:
        raise NotInArchive(
            f"kernel {kernel.name}: the mirror has no {kernel.series} {kernel.flavour} in {kernel.suite}"
        )
    lacking: set[str] = set()
    for image in sorted(images, key=lambda package: locks.release_key(package.name), reverse=True):
        parts = locks.parts_of(image)
        offered = _offered(kernel, parts)
        # linux-base holds the configuration, which no guest needs
        needed = {part for part in parts if not part.startswith("linux-base-")}
        missing = needed - {package.name for package in offered}
        if not missing:
            return offered
        lacking = lacking or missing
    raise NotWholeInArchive(
        f"kernel {kernel.name}: the mirror has no complete {kernel.series}: {', '.join(sorted(lacking))} is not there"
    )


def _offered(kernel: Kernel, names: Sequence[str]) -> tuple[Package, ...]:
    pattern = "|".join(name.replace("+", r"\+").replace(".", r"\.") for name in names)
    return _suite(kernel.suite).packages(pattern)


def _folder(manifest: Manifest, packages: Sequence[Package]) -> Path:
    parts = sorted(f"{package.name} {package.sha256}" for package in packages)
    return cache_dir() / "kernels" / digest([_FORMAT, *parts, *manifest.root.modules])


def _cached(manifest: Manifest, kernel: Kernel, packages: Sequence[Package]) -> KernelImage | None:
    folder = _folder(manifest, packages)
    try:
        image = wire.decode((folder / "image.json").read_bytes(), KernelImage)
    except FileNotFoundError:
        return None
    used(folder)
    return replace(_at(folder, image), name=kernel.name)


def _made(manifest: Manifest, kernel: Kernel, packages: Sequence[Package]) -> KernelImage:
    folder = _folder(manifest, packages)
    with locked(folder.name):
        if image := _cached(manifest, kernel, packages):
            return image
        with building(folder) as place, disk_errors(folder):
            with working(".download-", folder.parent) as download:
                _suite(kernel.suite).download(packages, download)
                debs = [find_deb(download, package) for package in packages]
                release = unpack.unpack(debs, place)
            unpack.keep_modules(place, release, manifest.root.modules)
            _erofs(place / "lib" / "modules", place / "modules.erofs")
            kernel_file = place / "boot" / f"vmlinuz-{release}"
            if elf := vmlinux.of(kernel_file.read_bytes()):
                kernel_file.write_bytes(elf)
            image = _at(Path(), KernelImage(kernel.name, release, locks.version_of(packages), Path(), Path(), Path()))
            wire.write(place / "image.json", image)
    return _at(folder, image)


def _at(folder: Path, image: KernelImage) -> KernelImage:
    return replace(
        image,
        vmlinuz=folder / "boot" / f"vmlinuz-{image.release}",
        modules=folder / "modules.erofs",
        config=folder / "boot" / f"config-{image.release}",
    )


def _erofs(tree: Path, target: Path) -> None:
    # -T0 and the fixed UUID make the image a function of its content
    run(
        ["mkfs.erofs", "-T0", "-U00000000-0000-0000-0000-000000000000", "--all-root", str(target), str(tree)],
        f"making {target.name}",
    )


def _own_kernel(manifest: Manifest, kernel: Kernel) -> KernelImage:
    """Take a kernel of the user's own: copied, because virtme-ng wants kernel and modules beside each other."""
    vmlinuz = Path(kernel.vmlinuz).expanduser()
    modules = Path(kernel.modules).expanduser() if kernel.modules else None
    where = f'kernels.toml: kernel "{kernel.name}"'
    try:
        release = unpack.release_of(vmlinuz)
    except OSError as error:
        raise ManifestError(f"{where}: vmlinuz {vmlinuz}: {error.strerror}") from error
    except ValueError as error:
        raise ManifestError(f"{where}: vmlinuz {vmlinuz} is not a kernel ({error})") from error
    if modules is not None and not modules.is_dir():
        raise ManifestError(f"{where}: modules {modules} is not a folder")
    stamps = [f"{path} {path.stat().st_mtime_ns}" for path in _own_modules(modules)]
    folder = cache_dir() / "kernels" / digest([_FORMAT, vmlinuz.read_bytes(), *stamps, *manifest.root.modules])
    image = _at(folder, KernelImage(kernel.name, release, str(vmlinuz), folder, folder, folder))
    with locked(folder.name):
        if not folder.exists():
            with building(folder) as place, disk_errors(folder):
                _copy_own(vmlinuz, modules, release, place)
                unpack.keep_modules(place, release, manifest.root.modules)
                _erofs(place / "lib" / "modules", place / "modules.erofs")
    used(folder)
    return image


def _copy_own(vmlinuz: Path, modules: Path | None, release: str, place: Path) -> None:
    (place / "boot").mkdir()
    (place / "boot" / f"vmlinuz-{release}").write_bytes(vmlinuz.read_bytes())
    (place / "boot" / f"config-{release}").touch()
    tree = place / "lib" / "modules" / release
    tree.mkdir(parents=True)
    for name in ("modules.builtin", "modules.order"):
        (tree / name).touch()
    for path in _own_modules(modules):
        target = tree / path.relative_to(modules or path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())


def _own_modules(modules: Path | None) -> list[Path]:
    """Return the files below ``lib/modules/RELEASE`` that are modules or say something about them, sorted."""
    if modules is None:
        return []
    files = (path for path in modules.rglob("*") if ".ko" in path.name or path.name.startswith("modules."))
    return sorted(path for path in files if path.is_file())
