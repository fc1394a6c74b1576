"""Projects for tests: that of this repository, and one below a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kernel_matrix.config import project as configuration
from kernel_matrix.shared.project import Project

ROOT = Path(__file__).resolve().parents[1]


def _here() -> Project:
    project = configuration.load(ROOT)
    assert project is not None
    return project


#: the project of this repository
HERE = _here()


def below(folder: Path, **fields: Any) -> Project:  # noqa: ANN401 - values of fields
    """Return a project in that folder, with this repository's kernels and no sources; ``fields`` override."""
    project = Project(
        root=folder,
        table="kernel-matrix.toml",
        pytest_config="pyproject.toml",
        images=HERE.images,
        tests=("suites",),
        baselines=folder / "baselines",
    )
    return replace(project, **fields)
