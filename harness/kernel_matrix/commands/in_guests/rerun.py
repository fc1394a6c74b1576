"""The command ``rerun``: the node id that repeats a cell of a report."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from kernel_matrix.plan import selection
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.outcomes import expect
from kernel_matrix.shared.project import Project

#: what `--repeat` adds to a node id
_REPETITION = re.compile(r"(\[|-)#\d+\]$")


def node_id(words: Sequence[str], kernels: Collection[str]) -> str:
    """Return the node id of a cell, written as a node id or as kernel and test; raises ManifestError."""
    text = _REPETITION.sub(lambda match: "" if match[1] == "[" else "]", " ".join(words))
    if expect.kernel_of_argument(text, kernels):
        return text
    kernel, _, test = text.partition(" ")
    if kernel not in kernels or "::" not in test:
        raise ManifestError(f"{text!r} is no cell: tests/x.py::test[6.1-p], or 6.1 tests/x.py::test[p]")
    return expect.join_nodeid(test, kernel)


def check(project: Project, nodeid: str, kernels: Collection[str]) -> None:
    """Refuse a test that does not exist, before a guest boots; raises ManifestError."""
    path = nodeid.partition("::")[0]
    if not (project.root / path).is_file():
        raise ManifestError(f"{path}: no such file below {project.root}")
    kernel = expect.kernel_of_argument(nodeid, kernels)
    if kernel is None or not selection.collects(project, nodeid, kernel):
        raise ManifestError(f"{nodeid}: there is no such test")
