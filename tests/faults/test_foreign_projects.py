"""Projects of others, each from a few files: init, run, baseline, and a mistake that is caught (with VMs)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import foreign_project
from tests.foreign_project import BPF2GO, SKELETON, Kind


@pytest.mark.parametrize("kind", [SKELETON, BPF2GO], ids=lambda kind: kind.folder)
def test_a_project_of_others_from_init_to_a_caught_mistake(kind: Kind, tmp_path: Path) -> None:
    foreign_project.check(kind, tmp_path)
