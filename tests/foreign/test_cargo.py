"""A Cargo project with aya, as the others of tests/faults/test_foreign_projects.py: it is compiled for a minute."""

from __future__ import annotations

from pathlib import Path

from tests import foreign_project
from tests.foreign_project import AYA


def test_a_cargo_project_from_init_to_a_caught_mistake(tmp_path: Path) -> None:
    foreign_project.check(AYA, tmp_path)
