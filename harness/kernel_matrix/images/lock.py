"""kernels.lock.toml: the exact packages of every kernel. Pure but for the file itself."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from kernel_matrix.images.archive import Package
from kernel_matrix.shared.errors import ManifestError

if TYPE_CHECKING:
    from debian.debian_support import Version

#: the file's name, in the folder of the project's images
NAME = "kernels.lock.toml"
_HEAD = """\
# The exact packages of each kernel, with the sha256 of each .deb. Written by `kernels update`.
"""
#: how the names of kernel packages begin; what follows is the release
_IMAGE = "linux-image-"


class Locked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One package of the lock."""

    name: str
    version: str
    sha256: str
    size: int


def read(path: Path) -> dict[str, tuple[Package, ...]]:
    """Return the packages of each kernel; no file is an empty lock."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    return parse(text)


def packages(folder: Path, kernel: str) -> tuple[Package, ...]:
    """Return the packages of a kernel in a folder's lock; empty when the kernel is not locked."""
    return read(folder / NAME).get(kernel, ())


@functools.lru_cache(maxsize=1)
def parse(text: str) -> dict[str, tuple[Package, ...]]:
    """Read the lock's text."""
    try:
        tables = msgspec.convert(tomllib.loads(text), dict[str, dict[str, tuple[Locked, ...]]])
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ManifestError(f"kernels.lock.toml: {error}") from error
    if set(tables) - {"kernel"}:
        raise ManifestError('kernels.lock.toml: only [[kernel."NAME"]] is allowed')
    return {
        kernel: tuple(Package(locked.name, locked.version, locked.sha256, locked.size) for locked in packages)
        for kernel, packages in tables.get("kernel", {}).items()
    }


def format_lock(lock: Mapping[str, Sequence[Package]]) -> str:
    """Return the lock's text, the same for the same packages."""
    import tomli_w

    kernels = {
        kernel: [
            {"name": package.name, "version": package.version, "sha256": package.sha256, "size": package.size}
            for package in sorted(packages, key=lambda package: package.name)
        ]
        for kernel, packages in lock.items()
    }
    return f"{_HEAD}\n{tomli_w.dumps({'kernel': kernels})}"


def version_of(packages: Sequence[Package]) -> str:
    """Return the version of a kernel's packages, which is the same for all, for display."""
    return packages[0].version if packages else "(none)"


def release_key(name: str) -> Version:
    """Return the key by which releases are compared, newer is greater; raises ValueError for no Debian version."""
    from debian.debian_support import Version

    return Version(name.removeprefix(_IMAGE))


def image_pattern(series: str, flavour: str) -> str:
    """Return the regular expression of a series' image packages: linux-image-RELEASE.

    The release is the series, further numbers and the flavour; ``-unsigned``, ``-dbg`` and other flavours do not match.
    """
    return rf"{_IMAGE}{re.escape(series)}(\.\d+)+(-\d+|\+deb\d+(\.\d+)*)-{re.escape(flavour)}"


def parts_of(image: Package) -> list[str]:
    """Return the packages with the image's parts: the image package, and base, binary and modules if it is split."""
    release = image.name.removeprefix(_IMAGE)
    parts = [f"linux-{part}-{release}" for part in ("base", "binary", "modules")]
    return [image.name, *[part for part in parts if re.search(rf"(^|[ ,]){re.escape(part)} ", image.depends + " ")]]
