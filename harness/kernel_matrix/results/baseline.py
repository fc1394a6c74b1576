"""The baseline: the outcomes and observations that are expected, in matrix/<kernel>.json, reviewed like code.

There is a file for each possible guest (a kernel, or a kernel with a variant of its command line) and a line for each
test, so that a diff shows what changed. Only green outcomes are recorded; red is never expected.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from kernel_matrix.results.document import Document
from kernel_matrix.shared import atomic
from kernel_matrix.shared.bpf.costs import COMPARED, Cost
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.outcomes.cells import IMAGE, Outcome

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Expectation:
    """The outcomes, costs and observations of one guest, expected or measured."""

    #: ``uname -r``, the package's version, the configuration's digest: a change of one is a drift
    release: str
    version: str
    config: str
    #: program -> what it costs
    costs: Mapping[str, Cost] = field(default_factory=dict)
    #: test -> outcome
    tests: Mapping[str, Outcome] = field(default_factory=dict)
    #: test -> what it observed: name -> value; only of tests that did what they are for
    observed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The form of a file."""

    release: str
    version: str
    config: str
    costs: dict[str, Cost]
    #: file -> test's name in it -> outcome
    tests: dict[str, dict[str, Outcome]]
    #: the same -> name -> value
    observed: dict[str, dict[str, dict[str, str]]] = msgspec.field(default_factory=dict)


def of_document(document: Document) -> dict[str, Expectation]:
    """Return the outcomes of a run by kernel, without the kernels whose images were unavailable."""
    tests: dict[str, dict[str, Outcome]] = {}
    observed: dict[str, dict[str, dict[str, str]]] = {}
    without = {cell.kernel for cell in document.cells if cell.test == IMAGE}
    for cell in document.cells:
        tests.setdefault(cell.kernel, {})[cell.test] = cell.outcome
        if cell.observed and cell.outcome.traits.done:
            observed.setdefault(cell.kernel, {})[cell.test] = dict(cell.observed)
    return {
        column.kernel: Expectation(
            column.release,
            column.version,
            column.config,
            column.costs,
            tests.get(column.kernel, {}),
            observed.get(column.kernel, {}),
        )
        for column in document.columns
        if column.kernel not in without
    }


def read(folder: Path) -> dict[str, Expectation]:
    """Read the baselines of all kernels; raises ManifestError in one line."""
    return {path.stem: parse(path.read_bytes(), str(path)) for path in sorted(folder.glob("*.json"))}


def parse(data: bytes, source: str) -> Expectation:
    """Parse a file's content; ``source`` names the file. Raises ManifestError in one line."""
    try:
        file = msgspec.json.decode(data, type=_File)
    except msgspec.MsgspecError as error:
        raise ManifestError(f"{source}: {error}") from error
    tests, observed = _by_test(file.tests), _by_test(file.observed)
    for test, outcome in tests.items():
        if not outcome.green:
            raise ManifestError(f"{source}: {test}: {outcome} is red, and red is never expected")
    for test in observed:
        if test not in tests:
            raise ManifestError(f"{source}: {test} has observations and no outcome")
    return Expectation(file.release, file.version, file.config, file.costs, tests, observed)


def _by_test(by_file: Mapping[str, Mapping[str, _T]]) -> dict[str, _T]:
    return {
        f"{path}::{name}" if name else path: value for path, values in by_file.items() for name, value in values.items()
    }


def text(expectation: Expectation) -> str:
    """Return a file's text: a line for each program, each test and the observations of each test, sorted."""
    costs = {name: msgspec.to_builtins(cost) for name, cost in sorted(expectation.costs.items())}
    head: dict[str, Any] = {
        "release": expectation.release,
        "version": expectation.version,
        "config": expectation.config,
    }
    lines = ["{", *(f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items())]
    lines += [
        ' "costs": {',
        *_joined(f"  {json.dumps(name)}: {json.dumps(cost)}" for name, cost in costs.items()),
        " },",
    ]
    parts = ["\n".join([' "tests": {', *_by_file(expectation.tests), " }"])]
    if expectation.observed:
        parts.append("\n".join([' "observed": {', *_by_file(expectation.observed), " }"]))
    return "\n".join([*lines, *_joined(parts), "}"]) + "\n"


def _by_file(values: Mapping[str, object]) -> list[str]:
    """Return the lines of values of tests, file by file."""
    files: dict[str, dict[str, object]] = {}
    for test, value in sorted(values.items()):
        path, _, name = test.partition("::")
        files.setdefault(path, {})[name] = value
    blocks = []
    for path, names in files.items():
        rows = _joined(f"   {json.dumps(name)}: {json.dumps(value, sort_keys=True)}" for name, value in names.items())
        blocks.append("\n".join([f"  {json.dumps(path)}: {{", *rows, "  }"]))
    return _joined(blocks)


def _joined(rows: Iterable[str]) -> list[str]:
    rows = list(rows)
    return [row + "," for row in rows[:-1]] + rows[-1:]


def updated(before: Expectation | None, now: Expectation, *, whole: bool) -> tuple[Expectation, list[str]]:
    """Return what to record, and the red tests: their former entries stay.

    After a run of some tests, the entries of all other tests stay, too.
    """
    former = before.tests if before else {}
    red = sorted(test for test, outcome in now.tests.items() if not outcome.green)
    kept = {test: outcome for test, outcome in former.items() if not whole or test in red}
    tests = kept | {test: outcome for test, outcome in now.tests.items() if outcome.green}
    stay = kept.keys() - (now.tests.keys() - red)
    observed = {test: values for test, values in (before.observed if before else {}).items() if test in stay}
    costs = dict(now.costs)
    for program, cost in before.costs.items() if before else ():
        if program in now.costs:
            # a new measurement of time alone is no difference to review
            costs[program] = cost if _same(cost, now.costs[program]) else now.costs[program]
        elif not whole or not now.costs:
            costs[program] = cost
    return Expectation(now.release, now.version, now.config, costs, tests, observed | dict(now.observed)), red


def _same(before: Cost, now: Cost) -> bool:
    return all(getattr(before, name) == getattr(now, name) for name in COMPARED)


def write(folder: Path, kernel: str, expectation: Expectation) -> None:
    """Write a kernel's file, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write(folder / f"{kernel}.json", text(expectation))
