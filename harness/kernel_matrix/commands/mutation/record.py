"""The reviewed record of mutants: kernel -> program -> mutant -> its fate and what decided it. A line each."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from kernel_matrix.commands.mutation.outcomes import Fate, Outcome
from kernel_matrix.shared import atomic
from kernel_matrix.shared.errors import ManifestError

#: between a fate and what decided it
_BY = ": "

#: kernel -> mutant's id -> outcome
Record = Mapping[str, Mapping[str, Outcome]]
#: kernel -> program -> mutant's name -> text
_File = dict[str, dict[str, dict[str, str]]]


def read(path: Path) -> Record:
    """Read the record, empty where there is none; raises ManifestError."""
    if not path.is_file():
        return {}
    try:
        kernels = msgspec.json.decode(path.read_bytes(), type=_File)
        return {
            kernel: {
                f"{program}/{name}": _outcome(text)
                for program, names in programs.items()
                for name, text in names.items()
            }
            for kernel, programs in kernels.items()
        }
    except (msgspec.MsgspecError, ValueError) as error:
        raise ManifestError(f"{path}: {error}") from error


def _outcome(text: str) -> Outcome:
    fate, _, by = text.partition(_BY)
    return Outcome(Fate(fate), by)


def updated(record: Record, kernel: str, outcomes: Mapping[str, Outcome], known: Collection[str]) -> Record:
    """Return the record with a kernel's new outcomes, and without the mutants that are gone.

    ``known`` are all mutants of the run's programs; those of other programs stay.
    """
    programs = {name.partition("/")[0] for name in known}
    old = record.get(kernel, {})
    kept = {name: outcome for name, outcome in old.items() if name in known or name.partition("/")[0] not in programs}
    return {**record, kernel: {**kept, **outcomes}}


def write(path: Path, record: Record) -> None:
    """Write the record: equal bytes for equal records, and a line for each mutant, for review."""
    kernels: _File = {}
    for kernel, outcomes in sorted(record.items()):
        programs: dict[str, dict[str, str]] = {}
        for mutant, outcome in sorted(outcomes.items()):
            program, _, name = mutant.partition("/")
            programs.setdefault(program, {})[name] = _text(outcome)
        kernels[kernel] = programs
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, json.dumps(kernels, indent=1, ensure_ascii=False) + "\n")


def _text(outcome: Outcome) -> str:
    # what the compiler or the verifier says differs between their versions, and decides nothing
    by = outcome.by if outcome.fate is Fate.KILLED else ""
    return f"{outcome.fate}{_BY}{by}" if by else str(outcome.fate)
