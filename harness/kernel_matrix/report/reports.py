"""The reports of a run: each renders the whole result set as one file of the run's folder.

A project adds reports with ``reports = ["package.module:name", ...]`` in its table. What renders them is imported when
it is needed: `prepare` does it while a run's guests start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from kernel_matrix.results.document import Document
from kernel_matrix.shared import named
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.project import Project

#: kernels -> the ends of their consoles
Consoles = Callable[[Iterable[str]], Mapping[str, str]]


class Report(Protocol):
    """A renderer of result sets."""

    @property
    def file(self) -> str:
        """The file's name in the run's folder."""

    def render(self, document: Document, consoles: Consoles) -> bytes | None:
        """Return the file's content; None: there is nothing to write."""


class Junit:
    """For CI systems."""

    file = "junit.xml"

    def render(self, document: Document, _: Consoles) -> bytes:
        """As in `Report`."""
        from kernel_matrix.report.formats import junit

        return junit.junit(document.cells)


class Markdown:
    """For the summary of a CI run and for comments."""

    file = "matrix.md"

    def render(self, document: Document, _: Consoles) -> bytes:
        """As in `Report`."""
        from kernel_matrix.report import markdown

        return markdown.markdown(document).encode()


class Html:
    """For browsers."""

    file = "matrix.html"

    def render(self, document: Document, consoles: Consoles) -> bytes:
        """As in `Report`, with the consoles of guests that died."""
        from kernel_matrix.report import html_page

        ends = consoles(cell.kernel for cell in document.cells if cell.outcome.traits.cut_short)
        return html_page.html(document, ends).encode()


class Sarif:
    """For code hosts, which show it at the source lines of a pull request."""

    file = "matrix.sarif"

    def render(self, document: Document, _: Consoles) -> bytes:
        """As in `Report`."""
        from kernel_matrix.report.formats import sarif

        return sarif.sarif(document)


class Statement:
    """For a CI that signs what it has tested."""

    file = "test-result.intoto.json"

    def render(self, document: Document, _: Consoles) -> bytes | None:
        """As in `Report`; a run without objects has none."""
        from kernel_matrix.report.formats import statement

        return statement.statement(document)


BUILT_IN: tuple[Report, ...] = (Junit(), Markdown(), Html(), Sarif(), Statement())


def prepare() -> None:
    """Import what renders the reports, and compile the page's template: a run has time for it while guests start."""
    from kernel_matrix.report import html_page
    from kernel_matrix.report.formats import junit, sarif, statement  # noqa: F401

    html_page.prepare()


def of(project: Project) -> tuple[Report, ...]:
    """Return the reports of a project's runs; raises ManifestError for one that cannot be imported."""
    all_reports = list(BUILT_IN)
    for name in project.reports:
        report: Report = named.imported(name, project.root, f"{project.table}: reports:")
        if report.file in {existing.file for existing in all_reports}:
            raise ManifestError(f"{project.table}: reports: {name}: another report writes {report.file}")
        all_reports.append(report)
    return tuple(all_reports)
