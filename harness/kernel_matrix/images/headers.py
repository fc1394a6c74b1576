"""Build the image of a kernel's headers in the cache: an erofs with ``include`` and ``arch/ARCHITECTURE/include``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from kernel_matrix.arch import CURRENT
from kernel_matrix.images.cache import building, cache_dir, digest, disk_errors, locked, used, working
from kernel_matrix.images.image import erofs

#: part of the cache's key: the version of this module's output
_FORMAT = "1"
_NAME = "headers.erofs"


def folder(parts: Iterable[bytes | str]) -> Path:
    """Return the cache folder, which may not exist yet, of the headers that are built from these parts."""
    return cache_dir() / "headers" / digest([_FORMAT, CURRENT.kernel, *parts])


def cached(place: Path) -> Path | None:
    """Return the image in a folder; None when it has not been built."""
    path = place / _NAME
    if not path.exists():
        return None
    used(place)
    return path


def build(target: Path, fill: Callable[[Path], None]) -> Path:
    """Return the image in the folder ``target``; ``fill`` writes its files into an empty folder. Raises ImageError."""
    with locked(f"headers-{target.name}"):
        if path := cached(target):
            return path
        with building(target) as place, disk_errors(target), working(".tree-", target.parent) as work:
            tree = work / "tree"
            tree.mkdir()
            fill(tree)
            erofs(tree, place / _NAME)
    return target / _NAME
