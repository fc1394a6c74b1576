"""``rerun CELL``: from a cell, as a report names it, to the node id that repeats exactly that."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from kernel_matrix.plan import selection
from kernel_matrix.shared import expect
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.project import Project

#: what `--repeat` adds to a node id
_REPETITION = re.compile(r"(\[|-)#\d+\]$")


def node_id(words: Sequence[str], kernels: Collection[str]) -> str:
    """Return the node id of a cell: one, or a kernel and a test; raises ManifestError for what names no cell."""
    said = _REPETITION.sub(lambda match: "" if match[1] == "[" else "]", " ".join(words))
    if expect.kernel_of_argument(said, kernels):
        return said
    kernel, _, test = said.partition(" ")
    if kernel not in kernels or "::" not in test:
        raise ManifestError(f"{said!r} is no cell: tests/x.py::test[6.1-p], or 6.1 tests/x.py::test[p]")
    return expect.join_nodeid(test, kernel)


def check(project: Project, nodeid: str, kernels: Collection[str]) -> None:
    """Find out before a guest boots that there is no such test; raises ManifestError."""
    path = nodeid.partition("::")[0]
    if not (project.root / path).is_file():
        raise ManifestError(f"{path}: no such file below {project.root}")
    kernel = expect.kernel_of_argument(nodeid, kernels)
    if kernel is None or not selection.collects(project, nodeid, kernel):
        raise ManifestError(f"{nodeid}: there is no such test")
