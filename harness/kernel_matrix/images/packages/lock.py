"""kernels.lock.toml: the exact packages of every kernel and of its headers. Pure but for the file itself."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from kernel_matrix.images.packages.archive import Package
from kernel_matrix.shared.errors import ManifestError

if TYPE_CHECKING:
    from debian.debian_support import Version

#: the file's name, in the folder of the project's images
NAME = "kernels.lock.toml"
_HEAD = """\
# The exact packages of each kernel, with the sha256 of each .deb. Written by `kernels update`.
# Headers are fetched only for a loader that compiles in the guest.
"""
#: how the names of kernel packages begin; what follows is the release
_IMAGE = "linux-image-"


class Locked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One package of the lock."""

    name: str
    version: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Lock:
    """The lock's content: kernel -> packages."""

    kernels: Mapping[str, Sequence[Package]] = field(default_factory=dict)
    headers: Mapping[str, Sequence[Package]] = field(default_factory=dict)


def read(path: Path) -> Lock:
    """Read the lock; no file is an empty lock."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return Lock()
    return parse(text)


def packages(folder: Path, kernel: str) -> tuple[Package, ...]:
    """Return the packages of a kernel in a folder's lock; empty when the kernel is not locked."""
    return tuple(read(folder / NAME).kernels.get(kernel, ()))


def headers(folder: Path, kernel: str) -> tuple[Package, ...]:
    """Return the packages of a kernel's headers in a folder's lock; empty when they are not locked."""
    return tuple(read(folder / NAME).headers.get(kernel, ()))


@functools.lru_cache(maxsize=1)
def parse(text: str) -> Lock:
    """Read the lock's text."""
    try:
        tables = msgspec.convert(tomllib.loads(text), dict[str, dict[str, tuple[Locked, ...]]])
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ManifestError(f"kernels.lock.toml: {error}") from error
    if set(tables) - {"kernel", "headers"}:
        raise ManifestError('kernels.lock.toml: only [[kernel."NAME"]] and [[headers."NAME"]] are allowed')
    kernels, of_headers = (
        {
            kernel: tuple(Package(locked.name, locked.version, locked.sha256, locked.size) for locked in packages)
            for kernel, packages in tables.get(kind, {}).items()
        }
        for kind in ("kernel", "headers")
    )
    return Lock(kernels, of_headers)


def format_lock(lock: Lock) -> str:
    """Return the lock's text, the same for the same packages."""
    import tomli_w

    tables = {"kernel": _tables(lock.kernels), "headers": _tables(lock.headers)}
    return f"{_HEAD}\n{tomli_w.dumps({kind: table for kind, table in tables.items() if table})}"


def _tables(lock: Mapping[str, Sequence[Package]]) -> dict[str, list[dict[str, object]]]:
    return {
        kernel: [
            {"name": package.name, "version": package.version, "sha256": package.sha256, "size": package.size}
            for package in sorted(packages, key=lambda package: package.name)
        ]
        for kernel, packages in lock.items()
    }


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


def release_of(packages: Sequence[Package]) -> str:
    """Return the release of a kernel's packages; empty when none of them is an image."""
    names = (package.name for package in packages if package.name.startswith(_IMAGE))
    return next((name.removeprefix(_IMAGE) for name in names), "")


def common_headers(headers: Package) -> str:
    """Return the name of the package that has the headers which all flavours share; empty when there is none."""
    match = re.search(r"(?:^|[ ,])(linux-headers-[^ ,]+-common(?:-[a-z]+)?)(?=[ ,]|$)", headers.depends)
    return match[1] if match else ""


def parts_of(image: Package) -> list[str]:
    """Return the packages with the image's parts: the image package, and base, binary and modules if it is split."""
    release = image.name.removeprefix(_IMAGE)
    parts = [f"linux-{part}-{release}" for part in ("base", "binary", "modules")]
    return [image.name, *[part for part in parts if re.search(rf"(^|[ ,]){re.escape(part)} ", image.depends + " ")]]
