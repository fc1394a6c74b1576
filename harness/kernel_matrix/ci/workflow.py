"""The workflow of GitHub Actions, made from the manifest: `.github/workflows/kernel-matrix.yml`.

The kernels of its job matrix are computed when it runs (`kernel_matrix.ci.jobs`). Values that must be in the file,
such as the choices of a manual run, are filled into the project's template (``workflow`` of its table). The template's
delimiters are not Jinja's, as GitHub uses those.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jinja2

from kernel_matrix.config import manifest
from kernel_matrix.config.manifest import GROUPS, Manifest
from kernel_matrix.shared import atomic
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.project import Project

#: below the project
PATH = Path(".github/workflows/kernel-matrix.yml")


def render(project: Project, kernel_manifest: Manifest) -> str:
    """Return the workflow's text; raises ManifestError where the project has no template."""
    if not project.workflow:
        raise ManifestError(f"{project.table}: workflow: no template of the workflow is named")
    environment = jinja2.Environment(
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        # the values are YAML, not HTML, and come from this repository
        autoescape=False,  # noqa: S701
    )
    template = environment.from_string((project.root / project.workflow).read_text())
    return template.render(groups=GROUPS, kernels=kernel_manifest.kernels, suite=kernel_manifest.root.suite)


def write(project: Project, text: str) -> bool:
    """Write the workflow; return whether the file changed."""
    if is_current(project, text):
        return False
    (project.root / PATH).parent.mkdir(parents=True, exist_ok=True)
    atomic.write(project.root / PATH, text)
    return True


def update(project: Project) -> Iterator[str]:
    """Write the workflow if the project has one and the manifest has changed it; yield a line that says so."""
    if project.workflow and write(project, render(project, manifest.load(project.images))):
        yield f"{PATH}: written"


def is_current(project: Project, text: str) -> bool:
    """Whether the file exists and has this text."""
    return (project.root / PATH).exists() and (project.root / PATH).read_text() == text
