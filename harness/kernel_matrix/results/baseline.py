"""What the matrix is expected to find: matrix/<kernel>.json of the project's baselines, reviewed like code.

A file for each guest there can be (a kernel, or a kernel with a variant of its command line), a line for each test:
what a reviewer reads is what changed. Only green outcomes are ever recorded; red is red whatever was expected.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from kernel_matrix.results.document import Document
from kernel_matrix.shared import atomic
from kernel_matrix.shared.cells import IMAGE, Outcome
from kernel_matrix.shared.costs import COMPARED, Cost
from kernel_matrix.shared.errors import ManifestError


@dataclass(frozen=True, slots=True)
class Expectation:
    """What one guest is expected to find, or has found."""

    #: ``uname -r``, the package's version, the configuration's digest: another patch version of a kernel is a drift
    release: str
    version: str
    config: str
    #: program -> what it costs
    costs: Mapping[str, Cost] = field(default_factory=dict)
    #: test -> outcome
    tests: Mapping[str, Outcome] = field(default_factory=dict)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The form of a file."""

    release: str
    version: str
    config: str
    costs: dict[str, Cost]
    #: file -> test's name in it -> outcome
    tests: dict[str, dict[str, Outcome]]


def found(document: Document) -> dict[str, Expectation]:
    """Return what a run found, kernel by kernel; a kernel whose image was not to be had has found nothing."""
    tests: dict[str, dict[str, Outcome]] = {}
    without = {cell.kernel for cell in document.cells if cell.test == IMAGE}
    for cell in document.cells:
        tests.setdefault(cell.kernel, {})[cell.test] = cell.outcome
    return {
        column.kernel: Expectation(
            column.release, column.version, column.config, column.costs, tests.get(column.kernel, {})
        )
        for column in document.columns
        if column.kernel not in without
    }


def read(folder: Path) -> dict[str, Expectation]:
    """Read the baseline of every kernel that has one; raises ManifestError in one line."""
    return {path.stem: parsed(path.read_bytes(), str(path)) for path in sorted(folder.glob("*.json"))}


def parsed(data: bytes, source: str) -> Expectation:
    """Read a file's content; ``source`` is the file. Raises ManifestError in one line."""
    try:
        file = msgspec.json.decode(data, type=_File)
    except msgspec.MsgspecError as error:
        raise ManifestError(f"{source}: {error}") from error
    tests = {
        f"{path}::{name}" if name else path: outcome for path, of in file.tests.items() for name, outcome in of.items()
    }
    if red := [test for test, outcome in tests.items() if not outcome.green]:
        raise ManifestError(f"{source}: {red[0]}: {tests[red[0]]} is red, and red is never expected")
    return Expectation(file.release, file.version, file.config, file.costs, tests)


def text(expectation: Expectation) -> str:
    """Return a file's text: a line for each program and each test, sorted."""
    tests: dict[str, dict[str, str]] = {}
    for test, outcome in sorted(expectation.tests.items()):
        path, _, name = test.partition("::")
        tests.setdefault(path, {})[name] = str(outcome)
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
    lines += [' "tests": {']
    blocks = []
    for path, names in tests.items():
        rows = _joined(f"   {json.dumps(name)}: {json.dumps(outcome)}" for name, outcome in names.items())
        blocks.append("\n".join([f"  {json.dumps(path)}: {{", *rows, "  }"]))
    return "\n".join([*lines, *_joined(blocks), " }", "}"]) + "\n"


def _joined(rows: Iterable[str]) -> list[str]:
    rows = list(rows)
    return [row + "," for row in rows[:-1]] + rows[-1:]


def recorded(before: Expectation | None, now: Expectation, *, whole: bool) -> tuple[Expectation, list[str]]:
    """Return what to record, and the tests that are red: of those the former entry stays, if there is one.

    A run of some tests leaves the others' entries as they are.
    """
    former = before.tests if before else {}
    red = sorted(test for test, outcome in now.tests.items() if not outcome.green)
    kept = {test: outcome for test, outcome in former.items() if not whole or test in red}
    tests = kept | {test: outcome for test, outcome in now.tests.items() if outcome.green}
    costs = dict(now.costs)
    for program, cost in before.costs.items() if before else ():
        if program in now.costs:
            # a time that was measured anew is no difference to review
            costs[program] = cost if _same(cost, now.costs[program]) else now.costs[program]
        elif not whole or not now.costs:
            costs[program] = cost
    return Expectation(now.release, now.version, now.config, costs, tests), red


def _same(one: Cost, other: Cost) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in COMPARED)


def write(folder: Path, kernel: str, expectation: Expectation) -> None:
    """Write a kernel's file, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write(folder / f"{kernel}.json", text(expectation))
