"""The names of tests: sentences of at most 60 characters, the docstring has the rest."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST = 60


def too_long(source: str) -> list[str]:
    """Return the names of the tests that ``source`` defines, strings left aside, where the name is too long."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and len(node.name) > LONGEST
    ]


@pytest.mark.parametrize("folder", ["tests", "suites"])
def test_no_test_has_a_name_of_more_than_60_characters(folder: str) -> None:
    modules = sorted((ROOT / folder).rglob("*.py"))
    assert modules
    assert {str(path.relative_to(ROOT)): names for path in modules if (names := too_long(path.read_text()))} == {}


def test_a_method_counts_and_a_name_of_60_characters_is_short() -> None:
    longest = "test_" + "x" * (LONGEST - len("test_"))
    source = f"class TestNames:\n    def {longest}(self): ...\n    def {longest}y(self): ...\n"
    assert too_long(source) == [f"{longest}y"]
