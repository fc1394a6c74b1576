"""Draw the README's picture, docs/matrix.svg: the recorded matrix of the core kernels, as a terminal shows it.

``python harness/tools/matrix_picture.py``, when what the picture shows has changed; it need not follow each new test.
"""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from kernel_matrix.config import manifest, project
from kernel_matrix.report import terminal
from kernel_matrix.results import baseline, matrix
from kernel_matrix.shared.outcomes.cells import Cell

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "matrix.svg"
_TITLE = "nox -s kernel-matrix"


def drawn() -> str:
    """Return the picture."""
    here = project.load(ROOT)
    assert here is not None
    recorded = baseline.read(here.matrix_baselines)
    kernels = [kernel.name for kernel in manifest.select(manifest.load(here.images), ["core"])]
    cells = [Cell(kernel, test, outcome) for kernel in kernels for test, outcome in recorded[kernel].tests.items()]
    judged = matrix.Matrix.of(cells, (), kernels)
    table = terminal.render_table(judged, {name: recorded[name].release for name in kernels}, here.loaders)
    console = Console(record=True, file=io.StringIO(), force_terminal=True, legacy_windows=False)
    console.width = console.measure(table, options=console.options.update(width=1000)).maximum
    console.print(table)
    console.print(matrix.summary_line(judged.cells))
    return console.export_svg(title=_TITLE, unique_id="terminal")


if __name__ == "__main__":
    PICTURE.write_text(drawn())
