"""Shards: the parts of a run, made of whole test files on kernels, balanced by recorded durations.

Pure, except for reading and writing its files. Tests of a file may share one measurement per guest, and so do those of
a folder with fixtures of package scope: neither is divided. Every machine divides the same way: by the files, the
kernels and the recorded durations of the project alone, never by the contents of a cache.
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
from kernel_matrix.shared.channel.division import Piece
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.outcomes.cells import Cell
from kernel_matrix.shared.outcomes.expect import kernel_of_argument
from kernel_matrix.shared.outcomes.features import plain_kernel

#: the file's name in a shard's run folder
NAME = "shard.json"
#: kernel -> test file -> seconds of all its tests together
Durations = Mapping[str, Mapping[str, float]]


class Unit(NamedTuple):
    """The unit of division: a test file on a kernel."""

    kernel: str
    #: relative to the project
    file: str


@dataclass(frozen=True, slots=True)
class Shard:
    """The number of a part, from 1, and how many parts there are."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``2/5``; raises ManifestError."""
        match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text, re.ASCII)
        if match is None or int(match[1]) > int(match[2]):
            raise ManifestError(f"--shard {text}: not a part such as 2/5")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True, slots=True)
class Part:
    """A shard's units and what it knows of the whole run: ``shard.json``, by which shards are merged."""

    shard: Shard
    #: digest of all shards' units: shards of one run have the same
    division: str
    #: digest of the project's files
    project: str
    #: paths, node ids and options that choose tests
    selection: tuple[str, ...]
    #: all guests of the whole run, in its order
    kernels: tuple[str, ...]
    #: the units of this shard
    units: tuple[Unit, ...]
    #: whether node ids of the command line name kernels: then what other kernels collect is not expected
    named: bool = False
    #: kernel -> tests that -k, -m or a variant deselected there
    left_out: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def files(self, kernel: str) -> tuple[str, ...]:
        """Return the files that this shard runs on that kernel."""
        return tuple(unit.file for unit in self.units if unit.kernel == kernel)

    def has(self, kernel: str, test: str) -> bool:
        """Whether a cell belongs to this shard."""
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
    """Return the units of a run, sorted.

    ``guests``: name -> its files; empty: all of the command line's ``arguments``, which may name one of ``kernels``.
    ``files`` lists the test files of an argument.
    """
    divided = set()
    for argument in arguments:
        named = kernel_of_argument(argument, kernels)
        for file in files(argument):
            running = [guest for guest, chosen in guests.items() if not chosen or file in chosen]
            divided |= {Unit(guest, file) for guest in running if named in {None, guest}}
    return tuple(sorted(divided))


def weigh(units: Iterable[Unit], durations: Durations) -> dict[Unit, float]:
    """Return the seconds of each unit: as recorded, else the median of its file on other kernels, else of all files."""
    all_files = [seconds for files in durations.values() for seconds in files.values()]
    usual = median(all_files) if all_files else 1.0
    weights = {}
    for unit in units:
        elsewhere = [files[unit.file] for files in durations.values() if unit.file in files]
        estimate = median(elsewhere) if elsewhere else usual
        weights[unit] = durations.get(unit.kernel, {}).get(unit.file, estimate)
    return weights


def divide(
    weights: Mapping[Unit, float], count: int, piece_path: Callable[[str], str] = str
) -> tuple[tuple[Unit, ...], ...]:
    """Divide into ``count`` parts: the longest piece first, into the part with the least so far; names break ties.

    ``piece_path`` returns what a file is not divided from: the file itself, or its folder.
    """
    units = pieces(weights, piece_path)
    seconds = weigh_pieces(weights, units)
    parts: list[list[Unit]] = [[] for _ in range(count)]
    loads = [0.0] * count
    for piece in sorted(units, key=lambda piece: (-seconds[piece], piece)):
        least = loads.index(min(loads))
        parts[least] += units[piece]
        loads[least] += seconds[piece]
    return tuple(tuple(sorted(part)) for part in parts)


def pieces(units: Iterable[Unit], piece_path: Callable[[str], str]) -> dict[Piece, list[Unit]]:
    """Return the pieces, in the order of their first units, and the units of each."""
    by_piece: dict[Piece, list[Unit]] = {}
    for unit in units:
        by_piece.setdefault(Piece(unit.kernel, piece_path(unit.file)), []).append(unit)
    return by_piece


def weigh_pieces(weights: Mapping[Unit, float], units: Mapping[Piece, Iterable[Unit]]) -> dict[Piece, float]:
    """Return the seconds of each piece; the sums do not depend on the order of the units."""
    return {piece: math.fsum(weights[unit] for unit in members) for piece, members in units.items()}


def digest(parts: Sequence[Sequence[Unit]]) -> str:
    """Return the digest of a division."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def recorded(document: Document, before: Durations) -> dict[str, dict[str, float]]:
    """Return ``before`` updated from a result set; a file that a dying guest cut short keeps its old duration.

    A file whose tests are all for variants has a duration of 0 on the plain kernel.
    """
    durations = {kernel: dict(files) for kernel, files in before.items()}
    by_unit: dict[Unit, list[Cell]] = {}
    for cell in document.cells:
        if "::" in cell.test:
            by_unit.setdefault(unit_of(cell.kernel, cell.test), []).append(cell)
    for unit, cells in by_unit.items():
        plain = Unit(plain_kernel(unit.kernel), unit.file)
        if plain not in by_unit:
            durations.setdefault(plain.kernel, {})[plain.file] = 0.0
        if not any(cell.outcome.traits.cut_short for cell in cells):
            durations.setdefault(unit.kernel, {})[unit.file] = round(sum(cell.duration for cell in cells), 1)
    return {kernel: dict(sorted(files.items())) for kernel, files in sorted(durations.items())}


def read_durations(path: Path) -> dict[str, dict[str, float]]:
    """Read the project's durations; empty when none are recorded yet. Raises ManifestError."""
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
    """Write shard.json beside a shard's results."""
    wire.write(folder / NAME, part)


def read(folder: Path, name: str) -> Part:
    """Read shard.json; raises ManifestError with the folder's ``name`` for results of no shard."""
    try:
        return wire.decode((folder / NAME).read_bytes(), Part)
    except FileNotFoundError as error:
        raise ManifestError(f"{name}: the results of a whole run, not of a shard") from error
    except msgspec.MsgspecError as error:
        raise ManifestError(f"{name}: {NAME}: {error}") from error
