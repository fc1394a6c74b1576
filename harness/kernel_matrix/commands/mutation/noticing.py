"""Which tests notice a mistake in their program: those that have killed a mutant, and those that say why they cannot.

``mutants.json`` names one test for each mutant, the first that failed. ``mutant_tests.json`` names a mutant for each
test that it leaves out, and ``idle.toml`` (`making.mistakes`) has the tests that notice none, each with its reason.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import msgspec

from kernel_matrix.commands.mutation.outcomes import Fate
from kernel_matrix.commands.mutation.record import Record
from kernel_matrix.shared import atomic
from kernel_matrix.shared.errors import ManifestError

#: test function -> the mutant that it noticed, and on which kernel
Noticed = Mapping[str, str]


def read(path: Path) -> Noticed:
    """Read the record, empty where there is none; raises ManifestError."""
    if not path.is_file():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except msgspec.MsgspecError as error:
        raise ManifestError(f"{path}: {error}") from error


def write(path: Path, noticed: Noticed) -> None:
    """Write the record: equal bytes for equal records, and a line for each test, for review."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, json.dumps(dict(sorted(noticed.items())), indent=1, ensure_ascii=False) + "\n")


def function(test: str) -> str:
    """Return the function of a test, without its parameters."""
    return test.partition("[")[0]


def killers(record: Record) -> frozenset[str]:
    """Return the test functions that a record of mutants names."""
    return frozenset(
        function(outcome.by)
        for outcomes in record.values()
        for outcome in outcomes.values()
        if outcome.fate is Fate.KILLED
    )


def functions_in(root: Path, paths: Collection[str]) -> tuple[str, ...]:
    """Return the test functions of files and folders, by their node ids without parameters, sorted."""
    return tuple(sorted(name for path in paths for name in _functions(root, path)))


def _functions(root: Path, path: str) -> Iterator[str]:
    files = sorted((root / path).rglob("test_*.py")) if (root / path).is_dir() else [root / path]
    for file in files:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield f"{file.relative_to(root)}::{node.name}"


def complaints(
    tests: Collection[str], killing: Collection[str], noticed: Noticed, idle: Collection[str]
) -> Iterator[str]:
    """Yield a line for each test that notices nothing and does not say why, and for each reason that does not hold."""
    for test in sorted(set(tests) - set(killing) - set(noticed) - set(idle)):
        yield f"{test}: notices no mutant, and idle.toml does not say why"
    for test in sorted(set(idle) - set(tests)):
        yield f"idle.toml: {test}: there is no such test"
    for test in sorted(set(idle) & (set(killing) | set(noticed))):
        yield f"idle.toml: {test}: it notices a mutant: {noticed.get(test, 'see mutants.json')}"
