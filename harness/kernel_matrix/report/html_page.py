"""A result set as one self-contained HTML file: no network, no other file. Pure.

Without JavaScript it shows the verdict, the changes, the red cells with their texts and the counts by file; with
JavaScript the files unfold to their cells. Hostile text of a test stays text: the template escapes it, no tag can begin
in the data, and the page's policy forbids fetching anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from markupsafe import Markup

from kernel_matrix.report import page_data, pictures
from kernel_matrix.report.page_data import Texts, text_sign
from kernel_matrix.results.changes import Kind
from kernel_matrix.results.document import Document
from kernel_matrix.results.findings import Difference, Finding, by_file, differences, findings, unchanged
from kernel_matrix.results.text import first_line, plain
from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from kernel_matrix.shared.outcomes.features import VARIANT, plain_kernel

if TYPE_CHECKING:
    import jinja2

#: the folder of the template, its style and its scripts
_PAGE = Path(__file__).with_name("page")
#: characters of texts that are written twice, for readers without JavaScript
_STATIC = 1_000_000
#: findings and differences that are listed, and how many of them are not folded
_LISTED, _OPEN = 200, 12
#: with more columns than this, their names are vertical
_UPRIGHT = 6


@dataclass(frozen=True, slots=True)
class Verdict:
    """The run in one line."""

    green: bool
    text: str
    more: str


@dataclass(frozen=True, slots=True)
class File:
    """A row of the matrix that unfolds: a test file."""

    folder: str
    name: str
    suite: str
    tests: int
    #: for each column, counts by outcome
    counts: tuple[dict[Outcome, int], ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes of one kind."""

    kind: Kind
    gates: bool
    differences: tuple[Difference, ...]


def prepare() -> None:
    """Compile the template, which takes longer than rendering it: a run has time for that while its guests start."""
    _template()


def html(document: Document, consoles: Mapping[str, str] | None = None) -> str:
    """Return the page; ``consoles``: kernel -> the end of its console, which explains cells without a report."""
    texts = Texts()
    data = page_data.of(document, consoles or {}, texts)
    counts = Counter(cell.outcome for cell in document.cells)
    gating, not_gating = _changes(document)
    return _template().render(
        document=document,
        verdict=verdict(document),
        unchanged=unchanged(document),
        counts=[(outcome, counts[outcome]) for outcome in Outcome if counts[outcome]],
        gating=gating,
        not_gating=not_gating,
        findings=findings(document.cells),
        files=_files(document),
        costs=pictures.costs(document),
        times=[pictures.seconds(document), pictures.slowest(document)] if document.cells else [],
        present={(cell.kernel, cell.test) for cell in document.cells},
        static_texts=_StaticTexts(),
        data=Markup(page_data.script(data)),  # noqa: S704 - page_data.script is what escapes it
        css=_source("page.css"),
        js=_script(),
    )


def verdict(document: Document) -> Verdict:
    """Return whether the run is green, and if not, why."""
    cells, status = document.cells, document.exit_status
    red = [cell for cell in cells if not cell.outcome.green]
    gating = sum(change.gates for change in document.changes)
    names = [column.kernel for column in document.columns]
    size = f"{_plural(len({cell.test for cell in cells}), 'test')} on {_kernels(names)}"
    if not cells:
        return Verdict(
            green=status == 0, text="No cells", more="nothing was to run" if status == 0 else "nothing was run"
        )
    if status == 2:
        return Verdict(
            green=False, text="Interrupted", more=f"{len(red):,} red of {_plural(len(cells), 'cell')}; {size}"
        )
    if red:
        tests, kernels = len({cell.test for cell in red}), len({plain_kernel(cell.kernel) for cell in red})
        where = f"in {_plural(tests, 'test')} on {_plural(kernels, 'kernel')}, of {size}"
        text = f"{_plural(len(red), 'red cell')} of {len(cells):,}"
        return Verdict(green=False, text=f"No verdict: {text}" if status == 3 else text, more=where)
    if gating:
        return Verdict(green=False, text=f"{_plural(gating, 'change')} against the baseline", more=f"all {size} green")
    if status:
        return Verdict(green=False, text=f"Exit status {status}", more=f"all {size} green")
    return Verdict(green=True, text=f"{'All ' * (len(cells) > 1)}{_plural(len(cells), 'cell')} green", more=size)


def fragment(kernel: str, test: str) -> str:
    """Return the fragment of the page's address that opens a cell."""
    return "cell=" + quote(f"{kernel}/{test}", safe="", errors="replace")


def _changes(document: Document) -> tuple[list[Changes], list[Changes]]:
    groups: dict[tuple[bool, Kind], list[Difference]] = {}
    for difference in differences(document.changes):
        groups.setdefault((difference.change.gates, difference.change.kind), []).append(difference)
    kinds = [Changes(kind, gates, tuple(group)) for (gates, kind), group in groups.items()]
    return [changes for changes in kinds if changes.gates], [changes for changes in kinds if not changes.gates]


def _files(document: Document) -> list[File]:
    rows = []
    for file, cells in by_file(document.cells).items():
        counts = {column.kernel: Counter[Outcome]() for column in document.columns}
        for cell in cells:
            counts.setdefault(cell.kernel, Counter())[cell.outcome] += 1
        folder, slash, name = file.rpartition("/")
        tests = len({cell.test for cell in cells})
        suite = page_data.suite_of(file)
        ordered = [{outcome: count[outcome] for outcome in Outcome if count[outcome]} for count in counts.values()]
        rows.append(File(folder + slash, name, suite, tests, tuple(ordered)))
    return rows


class _StaticTexts:
    """The texts of red cells for readers without JavaScript: equal texts of a finding once, up to a limit."""

    def __init__(self) -> None:
        self._left = _STATIC
        self._texts = Texts()

    def __call__(self, finding: Finding) -> list[tuple[Sequence[Cell], list[tuple[str, str]]]]:
        same: dict[tuple[tuple[str, str], ...], list[Cell]] = {}
        for cell in finding.cells:
            parts = tuple((title, self._texts.fit(text)) for title, text in page_data.parts(cell) if text)
            same.setdefault(parts, []).append(cell)
        return [(cells, self._within(parts)) for parts, cells in same.items()]

    def _within(self, parts: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        shown = []
        for title, text in parts:
            self._left -= len(text)
            fits = self._left >= 0
            shown.append((title, text if fits else f"{first_line(text)}\n… results.jsonl has the whole text"))
        return shown


def _kernels(names: Sequence[str]) -> str:
    bases = {plain_kernel(name) for name in names}
    variants = sum(VARIANT in name for name in names)
    more = f" and {_plural(variants, 'variant')} of them" if variants else ""
    return _plural(len(bases), "kernel") + more


def _plural(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _source(name: str) -> Markup:
    return Markup((_PAGE / name).read_text(encoding="utf-8"))  # noqa: S704 - our own file


def _script() -> Markup:
    parts = [_source(f"{name}.js") for name in ("data", "matrix", "cell")]
    # a run without cells has nothing to unfold
    return Markup('"use strict";\nif (document.getElementById("table")) (() => {\n%s})();\n') % Markup("\n").join(parts)


def environment() -> jinja2.Environment:
    """Return what renders the templates of pages."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # everything that is printed is text from outside, or a number
        finalize=lambda value: plain(value) if type(value) is str else value,
    )


@cache
def _template() -> jinja2.Template:
    templates = environment()
    templates.filters |= {"first_line": first_line, "duration": pictures.duration_text, "plural": _plural}
    templates.globals |= {
        "fragment": fragment, "signs": {outcome: text_sign(outcome.sign) for outcome in Outcome},
        "listed": _LISTED, "of_costs": {Kind.COSTLIER, Kind.CHEAPER}, "open": _OPEN, "upright": _UPRIGHT,
    }  # fmt: skip
    return templates.get_template("page.html.j2")
