"""Where kernels come from: one Protocol, a module for each provider, and which of them a kernel's table names.

Not here: what is made of a kernel's files (kernel_matrix.images.image).
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, Protocol

import msgspec.inspect

from kernel_matrix.config.manifest import KERNEL_KEYS, Kernel, Manifest
from kernel_matrix.images.archive import Package
from kernel_matrix.images.image import KernelImage
from kernel_matrix.images.providers.debian import Debian
from kernel_matrix.images.providers.path import OwnFiles
from kernel_matrix.shared.errors import ManifestError


class Provider(Protocol):
    """Where one kernel comes from: a dataclass whose fields are the keys of its own in the kernel's table.

    ``provider = "NAME"`` of the table is one of `BUILT_IN`, or ``MODULE:CLASS`` of a module that can be imported or
    lies beside kernels.toml.
    """

    def version(self, manifest: Manifest, kernel: Kernel) -> str:
        """Return which version a run would take, for a reader; empty where the lock is to say it and does not."""

    def folder(self, manifest: Manifest, kernel: Kernel) -> Path | None:
        """Return where the cache has the image, or will have it; None where that is not known beforehand."""

    def image(self, manifest: Manifest, kernel: Kernel, *, locked_only: bool) -> KernelImage:
        """Return the image, from the cache or made now; raises ImageError and ManifestError.

        ``locked_only``: never another version than the lock's.
        """

    def newest(self, kernel: Kernel) -> tuple[Package, ...]:
        """Return the packages that the lock is to have; none where nothing is locked.

        Raises NotInArchive and NotWholeInArchive, and ImageError when what it asks does not answer.
        """


BUILT_IN: dict[str, type[Provider]] = {"debian": Debian, "path": OwnFiles}


def of(manifest: Manifest, kernel: Kernel) -> Provider:
    """Return the provider of a kernel; raises ManifestError where there is none, or its keys are not right."""
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
    """Import MODULE:CLASS, from the manifest's folder too; raises ManifestError."""
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ManifestError(f"{where}: unknown provider {name!r} (known: {', '.join(BUILT_IN)}, or MODULE:CLASS)")
    sys.path.append(str(folder))
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ManifestError(f"{where}: provider {name}: {error}") from error
    finally:
        sys.path.remove(str(folder))
