"""A mutant: one source of a program with one text replaced. Pure."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

#: between a program and the mutant's name in an id
SEPARATOR = "/"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one file of a program."""

    #: the program: NAME of NAME.bpf.c
    program: str
    #: its name among the program's mutants
    name: str
    #: the changed file, relative to the folder of sources
    file: str
    #: the file's text without and with the change
    original: str
    changed: str
    #: for a mistake of the list, the sentence of the contract that it breaks; empty for a generated mutant
    breaks: str = ""

    @property
    def id(self) -> str:
        """The name by which record and command line know it."""
        return f"{self.program}{SEPARATOR}{self.name}"

    @property
    def line(self) -> int:
        """The number of the first line that differs."""
        pairs = zip(self.original.splitlines(), self.changed.splitlines(), strict=False)
        first = next((number for number, (was, now) in enumerate(pairs, 1) if was != now), None)
        return first or min(len(self.original.splitlines()), len(self.changed.splitlines())) + 1

    @property
    def diff(self) -> tuple[str, ...]:
        """The lines that the change removes and adds, each with its sign."""
        lines = difflib.unified_diff(self.original.splitlines(), self.changed.splitlines(), n=0, lineterm="")
        return tuple(line for line in list(lines)[2:] if not line.startswith("@@"))

    @property
    def change(self) -> str:
        """The change on one line, for records."""
        return " | ".join(f"{line[0]} {line[1:].strip()}" for line in self.diff)
