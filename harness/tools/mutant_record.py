"""The reviewed record of the harness's mutants: which modules, held by which tests, and the survivors. Pure.

``tests/harness_mutants.toml`` is the record.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from python_mutants import Name


class RecordError(Exception):
    """The record is not one; the message is one line."""


@dataclass(frozen=True, slots=True)
class Module:
    """A module that is mutated."""

    #: below the project's root
    path: str
    #: the test files that hold it
    tests: tuple[str, ...]
    #: its mutants that no test notices -> why that is right
    survivors: Mapping[Name, str]
    #: whether all its survivors are recorded; else it is tried only where it is named
    reviewed: bool = True


@dataclass(frozen=True, slots=True)
class Record:
    """The content of the file."""

    #: operators that are not applied -> why
    without: Mapping[str, str]
    modules: tuple[Module, ...]


def parse(text: str) -> Record:
    """Read the record; raises RecordError."""
    try:
        data = tomllib.loads(text)
        survivors: dict[str, dict[Name, str]] = {}
        for entry in data.pop("survivors", []):
            name = Name(entry.pop("in", ""), entry.pop("before"), entry.pop("after"), entry.pop("number", 1))
            _add(survivors.setdefault(entry.pop("module"), {}), name, entry.pop("reason"))
            _empty(entry)
        modules = [
            Module(path, tuple(tests), survivors.pop(path, {}), reviewed)
            for table, reviewed in ((data.pop("modules"), True), (data.pop("unreviewed", {}), False))
            for path, tests in table.items()
        ]
        without = dict(data.pop("without", {}))
        _empty(data)
        _empty(survivors)
    except (tomllib.TOMLDecodeError, KeyError, AttributeError, TypeError) as error:
        raise RecordError(f"{type(error).__name__}: {error}") from error
    return Record(without, tuple(modules))


def _add(survivors: dict[Name, str], name: Name, reason: str) -> None:
    if name in survivors:
        raise RecordError(f"recorded twice: {name}")
    if not reason.strip():
        raise RecordError(f"without a reason: {name}")
    survivors[name] = reason


def _empty(left: Mapping[str, Any]) -> None:
    if left:
        raise RecordError(f"unknown: {', '.join(left)}")


@dataclass(frozen=True, slots=True)
class Review:
    """What a run of a module's mutants shows beside the record."""

    #: survived, and is not recorded
    new: tuple[Name, ...]
    #: recorded, but killed, or no mutant any more
    stale: tuple[Name, ...]


def review(module: Module, names: Collection[Name], tried: Collection[Name], survived: Collection[Name]) -> Review:
    """Compare the survivors of a module with its record; ``names``: all its mutants."""
    assert set(survived) <= set(tried) <= set(names)
    killed = set(tried) - set(survived)
    return Review(
        tuple(name for name in survived if name not in module.survivors),
        tuple(name for name in module.survivors if name in killed or name not in names),
    )
