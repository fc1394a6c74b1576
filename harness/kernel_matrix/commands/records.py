"""``kernel-matrix durations`` and ``schema``: what is made of a run's record, and what it looks like."""

from __future__ import annotations

from pathlib import Path

from kernel_matrix.plan import sharding
from kernel_matrix.results import document
from kernel_matrix.shared.project import Project


def record_durations(project: Project, folder: Path | None) -> Path:
    """Record how long the tests of a run took, by which shards are balanced; return the file."""
    return sharding.write_durations(project.durations, document.read(folder or project.latest))


def schema() -> str:
    """Return the JSON schema of matrix.json."""
    return document.schema()
