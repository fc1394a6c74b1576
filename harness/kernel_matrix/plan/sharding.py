"""Which part of a run a shard is: whole test files on kernels, balanced by recorded durations.

Pure, but for reading and writing the files that say so. Tests of a file may share one measurement per guest, and those
of a folder with fixtures of scope package do: neither is divided. Every machine divides the same way: by the files, the
kernels and the recorded durations of the project alone, never by what a machine has in its cache.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec

from kernel_matrix.results.document import Document
from kernel_matrix.shared import atomic, wire
from kernel_matrix.shared.cells import Cell
from kernel_matrix.shared.division import Piece
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.expect import kernel_of_argument
from kernel_matrix.shared.features import plain_kernel

#: the file's name in a shard's run folder
NAME = "shard.json"
#: kernel -> test file -> seconds of all its tests together
Durations = Mapping[str, Mapping[str, float]]


class Unit(NamedTuple):
    """What a shard has or has not: a test file on a kernel."""

    kernel: str
    #: relative to the project
    file: str


@dataclass(frozen=True, slots=True)
class Shard:
    """Which part of how many, from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``2/5``; raises ManifestError."""
        found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text, re.ASCII)
        if found is None or int(found[1]) > int(found[2]):
            raise ManifestError(f"--shard {text}: not a part such as 2/5")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True, slots=True)
class Part:
    """What a shard knows of the whole run: ``shard.json``, from which shards are joined."""

    shard: Shard
    #: digest of all shards' units: shards of one run have the same
    division: str
    #: digest of the project's files
    project: str
    #: paths, node ids and options that choose tests
    selection: tuple[str, ...]
    #: every guest of the whole run, in its order
    kernels: tuple[str, ...]
    #: this shard's
    units: tuple[Unit, ...]
    #: whether node ids of the command line name kernels: then no kernel is held to what others collect
    named: bool = False
    #: kernel -> tests that -k, -m or a variant left out there
    left_out: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def files(self, kernel: str) -> tuple[str, ...]:
        """Return the files that this shard runs on that kernel."""
        return tuple(unit.file for unit in self.units if unit.kernel == kernel)

    def has(self, kernel: str, test: str) -> bool:
        """Whether a cell is this shard's."""
        return unit_of(kernel, test) in self.units


def unit_of(kernel: str, test: str) -> Unit:
    """Return the unit that a cell belongs to."""
    return Unit(kernel, test.partition("::")[0])


def units(
    guests: Mapping[str, Collection[str]],
    arguments: Iterable[str],
    kernels: Collection[str],
    files: Callable[[str], Iterable[str]],
) -> tuple[Unit, ...]:
    """Return what there is to divide, sorted.

    ``guests``: name -> the files it is for, empty when that is up to the command line's ``arguments``, which may name
    one of ``kernels``; ``files`` lists the test files of an argument.
    """
    found = set()
    for argument in arguments:
        named = kernel_of_argument(argument, kernels)
        for file in files(argument):
            meant = [guest for guest, own in guests.items() if not own or file in own]
            found |= {Unit(guest, file) for guest in meant if named in {None, guest}}
    return tuple(sorted(found))


def weigh(wanted: Iterable[Unit], durations: Durations) -> dict[Unit, float]:
    """Say how long each unit takes: as recorded; else the median of that file on other kernels; else of all files."""
    all_files = [seconds for files in durations.values() for seconds in files.values()]
    usual = median(all_files) if all_files else 1.0
    weights = {}
    for unit in wanted:
        elsewhere = [files[unit.file] for files in durations.values() if unit.file in files]
        estimate = median(elsewhere) if elsewhere else usual
        weights[unit] = durations.get(unit.kernel, {}).get(unit.file, estimate)
    return weights


def divide(
    weights: Mapping[Unit, float], count: int, whole: Callable[[str], str] = str
) -> tuple[tuple[Unit, ...], ...]:
    """Divide into ``count`` parts: the longest first, each into the part that has the least; names break ties.

    ``whole`` names what a file is not divided from: itself, or its folder.
    """
    found = pieces(weights, whole)
    takes = weigh_pieces(weights, found)
    parts: list[list[Unit]] = [[] for _ in range(count)]
    loads = [0.0] * count
    for piece in sorted(found, key=lambda piece: (-takes[piece], piece)):
        least = loads.index(min(loads))
        parts[least] += found[piece]
        loads[least] += takes[piece]
    return tuple(tuple(sorted(part)) for part in parts)


def pieces(units: Iterable[Unit], whole: Callable[[str], str]) -> dict[Piece, list[Unit]]:
    """Return what is never divided, in the order in which it first comes, and the units of each."""
    found: dict[Piece, list[Unit]] = {}
    for unit in units:
        found.setdefault(Piece(unit.kernel, whole(unit.file)), []).append(unit)
    return found


def weigh_pieces(weights: Mapping[Unit, float], found: Mapping[Piece, Iterable[Unit]]) -> dict[Piece, float]:
    """Say how long each piece takes; sums do not depend on the order in which the units come."""
    return {piece: math.fsum(weights[unit] for unit in units) for piece, units in found.items()}


def digest(parts: Sequence[Sequence[Unit]]) -> str:
    """Return the digest of a division."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def recorded(document: Document, before: Durations) -> dict[str, dict[str, float]]:
    """Return ``before`` with what a result set says; a file that a dying guest cut short keeps what it had.

    A file whose tests are all for variants takes a kernel with its own command line no time.
    """
    found = {kernel: dict(files) for kernel, files in before.items()}
    by_unit: dict[Unit, list[Cell]] = {}
    for cell in document.cells:
        if "::" in cell.test:
            by_unit.setdefault(unit_of(cell.kernel, cell.test), []).append(cell)
    for unit, cells in by_unit.items():
        own = Unit(plain_kernel(unit.kernel), unit.file)
        if own not in by_unit:
            found.setdefault(own.kernel, {})[own.file] = 0.0
        if not any(cell.outcome.traits.cut_short for cell in cells):
            found.setdefault(unit.kernel, {})[unit.file] = round(sum(cell.duration for cell in cells), 1)
    return {kernel: dict(sorted(files.items())) for kernel, files in sorted(found.items())}


def read_durations(path: Path) -> dict[str, dict[str, float]]:
    """Read the project's durations; none recorded yet are none. Raises ManifestError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, float]])
    except FileNotFoundError:
        return {}
    except msgspec.MsgspecError as error:
        raise ManifestError(f"{path}: {error}") from error


def write_durations(path: Path, document: Document) -> Path:
    """Rewrite the project's durations from a result set; return the file."""
    atomic.write(path, json.dumps(recorded(document, read_durations(path)), indent=1) + "\n")
    return path


def keep(folder: Path, part: Part) -> None:
    """Write what a shard knows of the whole run beside its results."""
    wire.write(folder / NAME, part)


def read(folder: Path, name: str) -> Part:
    """Read it; raises ManifestError, which names the folder so, for results that are no shard's."""
    try:
        return wire.decode((folder / NAME).read_bytes(), Part)
    except FileNotFoundError as error:
        raise ManifestError(f"{name}: the results of a whole run, not of a shard") from error
    except msgspec.MsgspecError as error:
        raise ManifestError(f"{name}: {NAME}: {error}") from error
