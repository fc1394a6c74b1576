"""A result set as one value, from which reports and comparisons are made.

It is stored in `results/latest/matrix.json`; ``docs/results.schema.json`` is its schema, made from these classes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kernel_matrix.results.changes import Change
from kernel_matrix.results.evidence import Digest, ObjectEvidence
from kernel_matrix.shared import wire
from kernel_matrix.shared.bpf.costs import COSTS, Cost
from kernel_matrix.shared.errors import HarnessError
from kernel_matrix.shared.outcomes.cells import Cell

#: grows when a reader of an older version would misread this one
VERSION = 1
#: the file's name in a run's folder
NAME = "matrix.json"


@dataclass(frozen=True, slots=True)
class Column:
    """One kernel of the run, with its own command line or with a variant of it."""

    #: such as ``6.1`` or ``6.1+lockdown_integrity``
    kernel: str
    #: ``uname -r`` that its image is for; empty when the image was unavailable
    release: str
    #: the package's version
    version: str
    #: the first twelve digits of its configuration's sha256; empty where the configuration is unavailable
    config: str
    #: program -> what it costs on this kernel; empty when the run did not measure it
    costs: dict[str, Cost]
    #: the releases that its guests reported; ``release`` is the one that was requested
    observed: tuple[str, ...] = ()
    #: what its guests were made of: kernel, modules, configuration, image, and each loader that is a program
    digests: tuple[Digest, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """A result set."""

    version: int
    #: when the run began, ISO 8601 with the zone
    started: str
    #: how long it took
    seconds: float
    exit_status: int
    #: the accelerator and why it was chosen
    accelerator: str
    #: guests at once
    guests: int
    #: the command line of pytest
    arguments: tuple[str, ...]
    #: whether all tests of its kernels were to run
    whole: bool
    #: which part of the tests ran, such as ``2/5``; empty: all
    shard: str
    #: what the user should know, a line each
    notes: tuple[str, ...]
    columns: tuple[Column, ...]
    #: sorted by column and test
    cells: tuple[Cell, ...]
    #: against the baseline, those that gate first
    changes: tuple[Change, ...]
    #: the loaders that tests ran with; a test's name has its loader as the first parameter
    loaders: tuple[str, ...] = ()
    #: those of them that a machine of the run lacked: their tests were skipped
    left_out: tuple[str, ...] = ()
    #: the project's objects that guests got
    objects: tuple[ObjectEvidence, ...] = ()
    #: the files that configured the run
    configuration: tuple[Digest, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all tests were to run: only then a test that is not in it is gone."""
        return self.whole and not self.shard


def schema() -> str:
    """Return the JSON schema of a result set."""
    definition: dict[str, Any] = msgspec.json.schema(Document)
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **definition}, indent=1) + "\n"


def read(path: Path) -> Document:
    """Read a result set from a run's folder or from a file; raises HarnessError in one line."""
    file = path / NAME if path.is_dir() else path
    try:
        document = wire.decode(file.read_bytes(), Document)
    except OSError as error:
        raise HarnessError(f"{file}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise HarnessError(f"{file}: not a result set: {error}") from error
    if document.version != VERSION:
        raise HarnessError(f"{file}: version {document.version} of result sets; this harness reads version {VERSION}")
    return document


def read_costs(run: Path) -> dict[str, dict[str, Cost]]:
    """Read the costs that a run's tests recorded: kernel -> program -> cost; raises HarnessError."""
    costs: dict[str, dict[str, Cost]] = {}
    for path in sorted((run / COSTS).glob("*.json")):
        try:
            costs[path.stem] = msgspec.json.decode(path.read_bytes(), type=dict[str, Cost])
        except msgspec.MsgspecError as error:
            raise HarnessError(f"{path}: no costs: {error}") from error
    return costs
