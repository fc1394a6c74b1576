"""Projects for tests: this repository's, and one below a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kernel_matrix.config import project as configuration
from kernel_matrix.shared.project import Project

ROOT = Path(__file__).resolve().parents[1]


def _here() -> Project:
    found = configuration.load(ROOT)
    assert found is not None
    return found


#: this repository's
HERE = _here()


def below(folder: Path, **fields: Any) -> Project:  # noqa: ANN401 - a field's
    """Return a project in that folder, with this repository's kernels and no sources; ``fields`` are what is else."""
    project = Project(
        root=folder,
        table="kernel-matrix.toml",
        pytest_config="pyproject.toml",
        images=HERE.images,
        tests=("suites",),
        baselines=folder / "baselines",
    )
    return replace(project, **fields)
