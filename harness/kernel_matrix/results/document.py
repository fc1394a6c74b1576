"""One result set as one value: what the report shows, the schema publishes and a comparison reads.

`results/latest/matrix.json` holds it; ``docs/results.schema.json`` is its schema, made from these classes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kernel_matrix.shared import wire
from kernel_matrix.shared.cells import Cell
from kernel_matrix.shared.changes import Change
from kernel_matrix.shared.costs import COSTS, Cost
from kernel_matrix.shared.errors import HarnessError

#: grows when a reader of an older version would misread this one
VERSION = 1
#: the file's name in a run's folder
NAME = "matrix.json"


@dataclass(frozen=True, slots=True)
class Column:
    """One kernel of the run, with its own command line or with a variant of it."""

    #: such as ``6.1`` or ``6.1+lockdown_integrity``
    kernel: str
    #: ``uname -r``; empty when its image was not to be had
    release: str
    #: the package's version
    version: str
    #: the first twelve digits of its configuration's sha256; empty where the configuration is not to be had
    config: str
    #: program -> what it costs on this kernel; empty when the run did not measure it
    costs: dict[str, Cost]


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
    #: the command line, as pytest was given it
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
    #: against the baseline, what gates first
    changes: tuple[Change, ...]

    @property
    def complete(self) -> bool:
        """Whether a test that is not in it is gone: a part of a run, or a run of some tests, says nothing of others."""
        return self.whole and not self.shard


def schema() -> str:
    """Return the JSON schema of a result set."""
    found: dict[str, Any] = msgspec.json.schema(Document)
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **found}, indent=1) + "\n"


def read(path: Path) -> Document:
    """Read the result set of a run's folder, or a file of one; raises HarnessError in one line."""
    file = path / NAME if path.is_dir() else path
    try:
        found = wire.decode(file.read_bytes(), Document)
    except OSError as error:
        raise HarnessError(f"{file}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise HarnessError(f"{file}: not a result set: {error}") from error
    if found.version != VERSION:
        raise HarnessError(f"{file}: version {found.version} of result sets; this harness reads version {VERSION}")
    return found


def read_costs(run: Path) -> dict[str, dict[str, Cost]]:
    """Read what a run's tests recorded: kernel -> program -> cost; raises HarnessError."""
    found: dict[str, dict[str, Cost]] = {}
    for path in sorted((run / COSTS).glob("*.json")):
        try:
            found[path.stem] = msgspec.json.decode(path.read_bytes(), type=dict[str, Cost])
        except msgspec.MsgspecError as error:
            raise HarnessError(f"{path}: no costs: {error}") from error
    return found
