"""A report outside the engine: every cell as a line of CSV. In the table: ``reports = ["csv_report:REPORT"]``."""

from __future__ import annotations

import csv
import io

from kernel_matrix.report.reports import Consoles
from kernel_matrix.results.document import Document


class CsvReport:
    """As in `kernel_matrix.report.reports.Report`."""

    file = "matrix.csv"

    def render(self, document: Document, consoles: Consoles) -> bytes:
        """Return the cells: kernel, test, outcome, whether it is green, seconds; dead guests have a console's end."""
        ends = consoles(cell.kernel for cell in document.cells if cell.outcome.traits.cut_short)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["kernel", "test", "outcome", "green", "seconds", "console"])
        for cell in document.cells:
            console = ends.get(cell.kernel, "") if cell.outcome.traits.cut_short else ""
            writer.writerow([cell.kernel, cell.test, cell.outcome, cell.outcome.green, cell.duration, console])
        return text.getvalue().encode()


REPORT = CsvReport()
