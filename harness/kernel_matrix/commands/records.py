"""The commands ``durations`` and ``schema``: record durations from a run, print the schema of its results."""

from __future__ import annotations

from pathlib import Path

from kernel_matrix.plan import sharding
from kernel_matrix.results import document
from kernel_matrix.shared.project import Project


def record_durations(project: Project, folder: Path | None) -> Path:
    """Record the durations of a run's tests, by which shards are balanced; return the file."""
    return sharding.write_durations(project.durations, document.read(folder or project.latest))


def schema() -> str:
    """Return the JSON schema of matrix.json."""
    return document.schema()
