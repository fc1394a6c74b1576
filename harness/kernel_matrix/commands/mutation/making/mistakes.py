"""Read the list of mistakes and of equivalent mutants: reviewed data of the project, in TOML.

``NAME.toml`` has the mistakes of the program NAME, a table each::

    [effective-uid]
    text = "..."            # occurs exactly once in the file
    replacement = "..."
    breaks = "..."          # the sentence of the contract that the mistake breaks
    file = "NAME.h"         # default: NAME.bpf.c

``equivalent.toml`` has the mutants that no test can notice, by their ids, each with its change and the argument::

    ["NAME/length-checked-later"]
    change = "..."
    because = "..."
    without = "runts"       # equivalent only on kernels without this feature; default: on all
    with = "counted"        # equivalent only on kernels with this feature; default: on all

``idle.toml`` has the tests that notice no mutant, each with the reason why it is there::

    ["tests/test_x.py::test_y"]
    because = "..."
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from kernel_matrix.commands.mutation.making.mutant import Mutant
from kernel_matrix.shared.errors import ManifestError

EQUIVALENT, IDLE = "equivalent.toml", "idle.toml"
_T = TypeVar("_T")


class Mistake(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entry of the list of mistakes."""

    text: str
    replacement: str
    breaks: str
    file: str = ""


class Equivalent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entry of the list of equivalent mutants."""

    #: the mutant's change, as the command prints it
    change: str
    #: why no test can notice it
    because: str
    #: a feature: kernels that have it can notice it
    without: str = ""
    #: a feature: kernels that do not have it can notice it
    having: str = msgspec.field(default="", name="with")

    def holds(self, features: Collection[str]) -> bool:
        """Whether no test can notice it on a kernel with these features."""
        lacks = not self.without or self.without not in features
        return lacks and (not self.having or self.having in features)


class Idle(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entry of the list of tests that notice no mutant."""

    #: why the test is there
    because: str


_A = TypeVar("_A", Equivalent, Idle)


def idle_tests(folder: Path) -> Mapping[str, Idle]:
    """Return the tests that are declared to notice no mutant; raises ManifestError."""
    return _argued(folder / IDLE, Idle, "why is it there?")


def read(folder: Path, program: str, sources: Path) -> tuple[Mutant, ...]:
    """Return the mutants of a program's list, none without a list; raises ManifestError."""
    path = folder / f"{program}.toml"
    return tuple(_mutants(path, program, sources)) if path.is_file() else ()


def _mutants(path: Path, program: str, sources: Path) -> Iterator[Mutant]:
    for name, mistake in _entries(path, Mistake).items():
        where = f"{path}: {name}"
        file = mistake.file or f"{program}.bpf.c"
        if not mistake.breaks.strip():
            raise ManifestError(f"{where}: breaks: which sentence of the contract?")
        try:
            original = (sources / file).read_text()
        except OSError as error:
            raise ManifestError(f"{where}: {file}: {error.strerror}") from error
        if (count := original.count(mistake.text)) != 1:
            raise ManifestError(f"{where}: its text occurs {count} times in {file}, not once")
        changed = original.replace(mistake.text, mistake.replacement)
        if changed == original:
            raise ManifestError(f"{where}: its replacement is its text")
        yield Mutant(program, name, file, original, changed, mistake.breaks)


def equivalents(folder: Path) -> Mapping[str, Equivalent]:
    """Return the mutants that are declared equivalent, by their ids; raises ManifestError."""
    return _argued(folder / EQUIVALENT, Equivalent, "why can no test notice it?")


def _argued(path: Path, kind: type[_A], question: str) -> Mapping[str, _A]:
    """Return the entries of a file, each of which has an answer to the question; none where there is no file."""
    entries = _entries(path, kind) if path.is_file() else {}
    for name, entry in entries.items():
        if not entry.because.strip():
            raise ManifestError(f"{path}: {name}: because: {question}")
    return entries


def equivalent_on(declared: Mapping[str, Equivalent], features: Collection[str]) -> frozenset[str]:
    """Return the mutants that are equivalent on a kernel with these features."""
    return frozenset(name for name, entry in declared.items() if entry.holds(features))


def check_features(declared: Mapping[str, Equivalent], features: Collection[str], folder: Path) -> None:
    """Refuse an entry that names another feature than the kernels can differ in; raises ManifestError."""
    for name, entry in declared.items():
        for key, feature in (("without", entry.without), ("with", entry.having)):
            if feature and feature not in features:
                raise ManifestError(f"{folder / EQUIVALENT}: {name}: {key}: unknown feature {feature!r}")


def check_equivalents(declared: Mapping[str, Equivalent], mutants: Mapping[str, Mutant], folder: Path) -> None:
    """Refuse an entry whose mutant is gone, or is another one now; raises ManifestError.

    The entries of programs that have no mutants in this run are not looked at.
    """
    programs = {mutant.program for mutant in mutants.values()}
    for name, entry in declared.items():
        if name.partition("/")[0] not in programs:
            continue
        if name not in mutants:
            raise ManifestError(f"{folder / EQUIVALENT}: {name}: there is no such mutant any more")
        if entry.change != mutants[name].change:
            raise ManifestError(f"{folder / EQUIVALENT}: {name}: its change is {mutants[name].change!r}")


def _entries(path: Path, kind: type[_T]) -> dict[str, _T]:
    try:
        content: Any = tomllib.loads(path.read_text())
        return msgspec.convert(content, dict[str, kind])  # type: ignore[valid-type]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ManifestError(f"{path}: {error}") from error
