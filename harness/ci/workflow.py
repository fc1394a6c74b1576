"""The workflow of GitHub Actions, made from the manifest: `.github/workflows/kernel-matrix.yml`.

Which kernels a job matrix has is found out when it runs (`harness.ci.jobs`); what must stand in the file, such as the
choices of a run by hand, is filled into workflow.yml.j2. Its marks are not Jinja's own: those are GitHub's.
"""

from __future__ import annotations

from pathlib import Path

import jinja2

from harness.config.manifest import GROUPS, Manifest

#: below the project
PATH = Path(".github/workflows/kernel-matrix.yml")
_TEMPLATE = Path(__file__).with_name("workflow.yml.j2")


def render(known: Manifest) -> str:
    """Return the workflow's text."""
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
        # what is filled in is YAML, not HTML, and comes from this repository
        autoescape=False,  # noqa: S701
    )
    template = environment.from_string(_TEMPLATE.read_text())
    return template.render(groups=GROUPS, kernels=known.kernels, suite=known.root.suite)


def write(root: Path, known: Manifest) -> bool:
    """Write it; return whether that changed it."""
    text = render(known)
    if current(root, text):
        return False
    (root / PATH).write_text(text)
    return True


def current(root: Path, text: str) -> bool:
    """Whether the file is there and says that."""
    return (root / PATH).exists() and (root / PATH).read_text() == text
