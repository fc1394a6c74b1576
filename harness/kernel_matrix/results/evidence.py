"""What a run was made of: the digests of files, and where the programs' sources are. Pure.

What is unknown is left out: there is no digest of a file that was not read.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Digest:
    """A file's content."""

    #: what the file is, such as ``kernel``, or its path in the project
    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ProgramSource:
    """Where a program of an object comes from, by its line information."""

    name: str
    #: the first instruction, the number of a file, and a line: from each instruction on, in their order
    lines: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class ObjectEvidence:
    """An object that guests got."""

    #: as cells name it: its path in the project
    name: str
    sha256: str
    #: the columns whose guests got it
    kernels: tuple[str, ...]
    #: the sources' paths, in the project where they are in it; lines count from 0 in this list
    files: tuple[str, ...] = ()
    programs: tuple[ProgramSource, ...] = ()
