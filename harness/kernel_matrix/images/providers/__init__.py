"""Providers of kernels: one Protocol, a module for each provider, and the lookup of a kernel's provider.

Not here: building an image from a kernel's files (kernel_matrix.images.image).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec.inspect

from kernel_matrix.config.manifest import KERNEL_KEYS, Kernel, Manifest
from kernel_matrix.images import modules
from kernel_matrix.images.image import KernelImage
from kernel_matrix.images.packages.archive import Package
from kernel_matrix.images.providers.debian import Debian
from kernel_matrix.images.providers.path import OwnFiles
from kernel_matrix.shared import named
from kernel_matrix.shared.errors import ManifestError


class Provider(Protocol):
    """The source of one kernel: a dataclass whose fields are the provider's keys in the kernel's table.

    The table's ``provider = "NAME"`` is one of `BUILT_IN`, or ``MODULE:CLASS`` of a module that can be imported or is
    in the folder of kernels.toml.
    """

    def version(self, manifest: Manifest, kernel: Kernel) -> str:
        """Return the version that a run would use, for display; empty when it must be locked and is not."""

    def folder(self, manifest: Manifest, kernel: Kernel) -> Path | None:
        """Return the image's folder in the cache, which may not exist yet; None when it is not known in advance."""

    def image(self, manifest: Manifest, kernel: Kernel, *, locked_only: bool) -> KernelImage:
        """Return the image, from the cache or built now; raises ImageError and ManifestError.

        ``locked_only``: use no other version than the locked one.
        """

    def newest(self, kernel: Kernel) -> tuple[Package, ...]:
        """Return the packages to lock; none when the provider locks nothing.

        Raises NotInArchive and NotWholeInArchive, and ImageError when the archive does not answer.
        """


@runtime_checkable
class HasHeaders(Protocol):
    """What a provider has, too, if loaders can compile for its kernels in a guest."""

    def headers_image(self, manifest: Manifest, kernel: Kernel, image: KernelImage, *, locked_only: bool) -> Path:
        """Return an erofs with the headers of a kernel's image, from the cache or built now.

        Raises ImageError when they are unavailable, and ManifestError. ``locked_only``: use no others than the locked.
        """


@runtime_checkable
class LocksHeaders(Protocol):
    """What a provider has, too, if the lock has the packages of its kernels' headers."""

    def newest_headers(self, kernel: Kernel, packages: Sequence[Package]) -> tuple[Package, ...]:
        """Return the packages of the headers of these packages; raises NotInArchive, and ImageError as `newest`."""


@runtime_checkable
class HasModules(Protocol):
    """What a provider has, too, if modules can be loaded that its kernels' images leave out."""

    def all_modules(
        self, manifest: Manifest, kernel: Kernel, image: KernelImage, describe: modules.Describe
    ) -> modules.Modules:
        """Return all modules of an image, from the cache or made now; raises ImageError when they are unavailable.

        ``describe`` as in `kernel_matrix.images.modules`.
        """


BUILT_IN: dict[str, type[Provider]] = {"debian": Debian, "path": OwnFiles}


def of(manifest: Manifest, kernel: Kernel) -> Provider:
    """Return the provider of a kernel; raises ManifestError when there is none or its keys are invalid."""
    where = f'kernels.toml: kernel "{kernel.name}"'
    kind = BUILT_IN.get(kernel.provider) or _imported(kernel.provider, manifest.folder, where)
    try:
        fields = _fields(kind)
    except TypeError as error:
        raise ManifestError(f"{where}: provider {kernel.provider}: {error}") from error
    keys = f"keys: {', '.join(KERNEL_KEYS)}; of provider {kernel.provider}: {', '.join(fields)}"
    for key in kernel.keys:
        if key not in fields:
            raise ManifestError(f"{where}: unknown field `{key}` ({keys})")
    for key, field in fields.items():
        if field.required and not kernel.keys.get(key):
            raise ManifestError(f"{where}: provider {kernel.provider} needs {key}")
    try:
        return msgspec.convert(kernel.keys, kind)
    except msgspec.ValidationError as error:
        raise ManifestError(f"{where}: {error} ({keys})") from error


def _fields(kind: type[Provider]) -> dict[str, msgspec.inspect.Field]:
    described = msgspec.inspect.type_info(kind)
    if not isinstance(described, msgspec.inspect.DataclassType | msgspec.inspect.StructType):
        raise TypeError(f"{kind} is no dataclass")
    return {field.encode_name: field for field in described.fields}


def _imported(name: str, folder: Path, where: str) -> Any:  # noqa: ANN401 - what it is shows when it is used
    """Import MODULE:CLASS, also from the manifest's folder; raises ManifestError."""
    if ":" not in name:
        raise ManifestError(f"{where}: unknown provider {name!r} (known: {', '.join(BUILT_IN)}, or MODULE:CLASS)")
    # last: a module of that name that is installed has precedence
    return named.imported(name, folder, f"{where}: provider", position=len(sys.path))
