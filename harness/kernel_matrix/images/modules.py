"""All modules of a kernel, of which its image has a few: kept compressed, with a list of the names that each has."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kernel_matrix.images.cache import building, cache_dir, digest, disk_errors, locked, used, working
from kernel_matrix.images.packages import unpack

#: part of the cache's key: the version of this module's output
_FORMAT = "1"
_FILES, _NAMES, _DEPENDS = "modules.zip", "names", "modules.dep"
#: takes a module's content; yields the names that it has
Describe = Callable[[bytes], Iterable[str]]


@dataclass(frozen=True)
class Modules:
    """The modules of a kernel, in the cache."""

    place: Path

    def called(self, names: Iterable[str]) -> dict[str, str]:
        """Return modules' paths below lib/modules/RELEASE by their names, of those that are modules here."""
        paths = {unpack.module_name(path): path for path in self._depends}
        return {name: paths[key] for name in names if (key := name.replace("-", "_")) in paths}

    def having(self, names: Iterable[str]) -> dict[str, str]:
        """Return the module that has a name, for each that one has.

        Of several it is the one that most of the others depend on: a struct is in the types of each module that uses
        it.
        """
        listed = (self.place / _NAMES).read_text()
        having = {}
        for name in names:
            paths = re.findall(rf"(?<=\n){re.escape(name)}\t(.+)", listed)
            if paths:
                having[name] = min(paths, key=lambda path: self._rank(path, paths))
        return having

    def _rank(self, path: str, others: Collection[str]) -> tuple[int, int, str]:
        users = sum(path in self._depends.get(other, ()) for other in others)
        return -users, len(self._depends.get(path, ())), path

    def in_order(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Return modules with those that they depend on, each behind what it needs."""
        ordered: dict[str, None] = {}
        for path in paths:
            # depmod writes what has to be loaded first at the end
            ordered |= dict.fromkeys((*reversed(self._depends.get(path, ())), path))
        return tuple(ordered)

    @cached_property
    def _depends(self) -> Mapping[str, tuple[str, ...]]:
        with zipfile.ZipFile(self.place / _FILES) as archive:
            return unpack.parse_modules_dep(archive.read(_DEPENDS).decode())

    def content(self, path: str) -> bytes:
        """Return a module's file, uncompressed."""
        with zipfile.ZipFile(self.place / _FILES) as archive:
            return archive.read(path)


def folder(parts: Iterable[bytes | str]) -> Path:
    """Return the cache folder, which may not exist yet, of the modules that are made from these parts."""
    return cache_dir() / "modules" / digest([_FORMAT, *parts])


def cached(place: Path) -> Modules | None:
    """Return the modules in a folder; None when they are not there."""
    if not (place / _NAMES).exists():
        return None
    used(place)
    return Modules(place)


def build(target: Path, fill: Callable[[Path], str], describe: Describe) -> Modules:
    """Return the modules in the folder ``target``; ``fill`` as for images. Raises ImageError."""
    with locked(f"modules-{target.name}"):
        if modules := cached(target):
            return modules
        with building(target) as place, disk_errors(target), working(".tree-", target.parent) as tree:
            release = fill(tree)
            unpack.depmod(tree, release)
            _pack(tree / "lib" / "modules" / release, place, describe)
    return Modules(target)


def _pack(tree: Path, place: Path, describe: Describe) -> None:
    """Write all modules into one archive, where each can be read alone, and their names into one file."""
    with (
        zipfile.ZipFile(place / _FILES, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        (place / _NAMES).open("w") as names,
    ):
        names.write("\n")
        archive.writestr(_DEPENDS, (tree / _DEPENDS).read_text())
        for path in sorted(tree.rglob("*.ko*")):
            content = unpack.decompressed(path)
            name = str(path.relative_to(tree))
            archive.writestr(name, content)
            names.writelines(f"{has}\t{name}\n" for has in describe(content))


def needed_folder(parts: Iterable[str]) -> Path:
    """Return the cache folder of what was concluded about objects and one kernel; it exists."""
    target = cache_dir() / "needed" / digest([_FORMAT, *parts])
    with locked(f"needed-{target.name}"):
        if not target.exists():
            with building(target), disk_errors(target):
                pass
    used(target)
    return target
