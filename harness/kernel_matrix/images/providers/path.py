"""Kernels that a user has built: files of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kernel_matrix.arch import CURRENT
from kernel_matrix.config.manifest import Kernel, Manifest
from kernel_matrix.images import headers
from kernel_matrix.images import image as images
from kernel_matrix.images import modules as module_files
from kernel_matrix.images.image import KernelImage
from kernel_matrix.images.packages import unpack
from kernel_matrix.images.packages.archive import Package
from kernel_matrix.shared.errors import ImageError, ManifestError


@dataclass(frozen=True, slots=True)
class OwnFiles:
    """A user's own kernel; the fields are the keys of its table."""

    #: a bzImage or an uncompressed vmlinux
    vmlinuz: str
    #: the folder with the content of ``lib/modules/RELEASE``; empty when everything that a guest needs is built in
    modules: str = ""
    #: the folder in which it was built, or its headers were installed: with ``include`` and ``arch``; empty: none
    headers: str = ""

    def version(self, manifest: Manifest, kernel: Kernel) -> str:  # noqa: ARG002
        """Return the path, because there is no version."""
        return self.vmlinuz

    def folder(self, manifest: Manifest, kernel: Kernel) -> Path | None:  # noqa: ARG002
        """Return None: the folder depends on the files' content when the image is built."""
        return None

    def image(self, manifest: Manifest, kernel: Kernel, *, locked_only: bool) -> KernelImage:  # noqa: ARG002
        """Return the image, a copy, because virtme-ng expects kernel and modules in one folder."""
        vmlinuz = Path(self.vmlinuz).expanduser()
        modules = Path(self.modules).expanduser() if self.modules else None
        where = f'kernels.toml: kernel "{kernel.name}"'
        try:
            release = unpack.release_of(vmlinuz)
        except OSError as error:
            raise ManifestError(f"{where}: vmlinuz {vmlinuz}: {error.strerror}") from error
        except ValueError as error:
            raise ManifestError(f"{where}: vmlinuz {vmlinuz} is not a kernel ({error})") from error
        if modules is not None and not modules.is_dir():
            raise ManifestError(f"{where}: modules {modules} is not a folder")
        stamps = [f"{path} {path.stat().st_mtime_ns}" for path in _module_files(modules)]
        target = images.folder(manifest, ["files", vmlinuz.read_bytes(), *stamps])

        def fill(place: Path) -> str:
            _copy(vmlinuz, modules, release, place)
            return release

        return images.build(manifest, target, kernel.name, str(vmlinuz), fill)

    def headers_image(self, manifest: Manifest, kernel: Kernel, image: KernelImage, *, locked_only: bool) -> Path:  # noqa: ARG002
        """Return the headers, a copy; raises ImageError when the table names none."""
        where = f'kernels.toml: kernel "{kernel.name}"'
        if not self.headers:
            raise ImageError(f"kernel {kernel.name}: its table names no headers")
        folder = Path(self.headers).expanduser()
        if not (folder / unpack.KCONFIG).is_file():
            raise ManifestError(f"{where}: headers {folder} has no {unpack.KCONFIG}")
        files = [folder / path for path in _headers(folder)]
        stamps = [f"{path} {path.stat().st_mtime_ns}" for path in files]

        def fill(tree: Path) -> None:
            for path in files:
                target = tree / path.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())

        return headers.build(headers.folder(["files", *stamps]), fill)

    def all_modules(
        self,
        manifest: Manifest,  # noqa: ARG002
        kernel: Kernel,
        image: KernelImage,
        describe: module_files.Describe,
    ) -> module_files.Modules:
        """Return the modules of the folder that the table names; raises ImageError when it names none."""
        if not self.modules:
            raise ImageError(f"kernel {kernel.name}: its table names no modules")
        folder = Path(self.modules).expanduser()
        stamps = [f"{path} {path.stat().st_mtime_ns}" for path in _module_files(folder)]

        def fill(tree: Path) -> str:
            _copy(image.vmlinuz, folder, image.release, tree)
            return image.release

        return module_files.build(module_files.folder(["files", *stamps]), fill, describe)

    def newest(self, kernel: Kernel) -> tuple[Package, ...]:  # noqa: ARG002
        """Return no packages: the user's files are not locked."""
        return ()


def _headers(folder: Path) -> list[Path]:
    """Return the headers below the folder of a kernel's build, relative, sorted."""
    tops = (folder / "include", folder / "arch" / CURRENT.kernel / "include")
    paths = [path.relative_to(folder) for top in tops for path in top.rglob("*") if path.is_file()]
    return sorted(path for path in paths if unpack.is_header(PurePosixPath(path)))


def _copy(vmlinuz: Path, modules: Path | None, release: str, place: Path) -> None:
    (place / "boot").mkdir()
    (place / "boot" / f"vmlinuz-{release}").write_bytes(vmlinuz.read_bytes())
    (place / "boot" / f"config-{release}").touch()
    tree = place / "lib" / "modules" / release
    tree.mkdir(parents=True)
    for name in ("modules.builtin", "modules.order"):
        (tree / name).touch()
    for path in _module_files(modules):
        target = tree / path.relative_to(modules or path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())


def _module_files(modules: Path | None) -> list[Path]:
    """Return the modules below ``lib/modules/RELEASE`` and the files that describe them, sorted."""
    if modules is None:
        return []
    files = (path for path in modules.rglob("*") if ".ko" in path.name or path.name.startswith("modules."))
    return sorted(path for path in files if path.is_file())
