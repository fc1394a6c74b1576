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
    """Return the packages that the lock in that folder has of a kernel, none where it has none."""
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
        kernel: tuple(Package(each.name, each.version, each.sha256, each.size) for each in packages)
        for kernel, packages in tables.get("kernel", {}).items()
    }


def format_lock(lock: Mapping[str, Sequence[Package]]) -> str:
    """Return the lock's text: the same for the same packages."""
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
    """Return the version of a kernel's packages, which have one, for a reader."""
    return packages[0].version if packages else "(none)"


def release_key(name: str) -> Version:
    """Return what a package's release is compared by: newer is greater; raises ValueError for no Debian version."""
    from debian.debian_support import Version

    return Version(name.removeprefix(_IMAGE))


def image_pattern(series: str, flavour: str) -> str:
    """Return the regular expression of a series' image packages: linux-image-RELEASE.

    The release begins with the series and two dots or a dash later ends with the flavour; ``-unsigned``, ``-dbg``
    and the other flavours do not match.
    """
    return rf"{_IMAGE}{re.escape(series)}(\.\d+)+(-\d+|\+deb\d+(\.\d+)*)-{re.escape(flavour)}"


def parts_of(image: Package) -> list[str]:
    """Return the packages that hold the image's parts: itself and, where it is split, base, binary and modules."""
    release = image.name.removeprefix(_IMAGE)
    parts = [f"linux-{part}-{release}" for part in ("base", "binary", "modules")]
    return [image.name, *[part for part in parts if re.search(rf"(^|[ ,]){re.escape(part)} ", image.depends + " ")]]
