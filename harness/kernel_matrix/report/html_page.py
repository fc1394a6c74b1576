"""A result set as one HTML file that needs nothing else: no network, no other file. Pure.

Without JavaScript it says the verdict, the changes, the red cells with their texts and the counts by file; with it the
files unfold to their cells. What is hostile in a test's text stays text: the template escapes, no tag can begin in the
data, and the page's policy lets nothing be fetched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from kernel_matrix.report import page_data, pictures
from kernel_matrix.report.page_data import Texts, text_sign
from kernel_matrix.results.document import Document
from kernel_matrix.results.findings import Difference, Finding, by_file, differences, findings, unchanged
from kernel_matrix.shared.cells import Cell, Outcome
from kernel_matrix.shared.changes import Kind
from kernel_matrix.shared.features import VARIANT, plain_kernel
from kernel_matrix.shared.text import first_line, plain

#: the template, and the style and the script that go into it
_PAGE = Path(__file__).with_name("page")
#: characters of texts that are written a second time, for a reader without JavaScript
_SERVED = 1_000_000
#: findings and differences that are listed, and how many of them before a fold
_LISTED, _OPEN = 200, 12
#: more columns than that have their names upright
_UPRIGHT = 6


@dataclass(frozen=True, slots=True)
class Verdict:
    """The run in one line."""

    green: bool
    text: str
    more: str


@dataclass(frozen=True, slots=True)
class File:
    """A row of the matrix that unfolds: one test file."""

    folder: str
    name: str
    suite: str
    tests: int
    #: a column each: counts by outcome
    counts: tuple[dict[Outcome, int], ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes of one kind."""

    kind: Kind
    gates: bool
    differences: tuple[Difference, ...]


def html(document: Document, consoles: Mapping[str, str] | None = None) -> str:
    """Return the page; ``consoles`` are the ends of consoles that explain cells without a report, by kernel."""
    texts = Texts()
    data = page_data.of(document, consoles or {}, texts)
    counts = Counter(cell.outcome for cell in document.cells)
    gating, others = _changes(document)
    return _template().render(
        document=document,
        verdict=verdict(document),
        unchanged=unchanged(document),
        counts=[(outcome, counts[outcome]) for outcome in Outcome if counts[outcome]],
        gating=gating,
        others=others,
        findings=findings(document.cells),
        files=_files(document),
        costs=pictures.costs(document),
        times=[pictures.seconds(document), pictures.slowest(document)] if document.cells else [],
        known={(cell.kernel, cell.test) for cell in document.cells},
        served=_Served(),
        data=Markup(page_data.script(data)),  # noqa: S704 - page_data.script is what escapes it
        css=_source("page.css"),
        js=_script(),
    )


def verdict(document: Document) -> Verdict:
    """Return whether the run is green, and why not."""
    cells, status = document.cells, document.exit_status
    red = [cell for cell in cells if not cell.outcome.green]
    gating = sum(change.gates for change in document.changes)
    names = [column.kernel for column in document.columns]
    size = f"{_many(len({cell.test for cell in cells}), 'test')} on {_kernels(names)}"
    if not cells:
        return Verdict(
            green=status == 0, text="No cells", more="nothing was to run" if status == 0 else "nothing was run"
        )
    if status == 2:
        return Verdict(green=False, text="Interrupted", more=f"{len(red):,} red of {_many(len(cells), 'cell')}; {size}")
    if red:
        tests, kernels = len({cell.test for cell in red}), len({plain_kernel(cell.kernel) for cell in red})
        where = f"in {_many(tests, 'test')} on {_many(kernels, 'kernel')}, of {size}"
        text = f"{_many(len(red), 'red cell')} of {len(cells):,}"
        return Verdict(green=False, text=f"No verdict: {text}" if status == 3 else text, more=where)
    if gating:
        return Verdict(green=False, text=f"{_many(gating, 'change')} against the baseline", more=f"all {size} green")
    if status:
        return Verdict(green=False, text=f"Exit status {status}", more=f"all {size} green")
    return Verdict(green=True, text=f"{'All ' * (len(cells) > 1)}{_many(len(cells), 'cell')} green", more=size)


def fragment(kernel: str, test: str) -> str:
    """Return what opens a cell, behind the page's address and ``#``."""
    return "cell=" + quote(f"{kernel}/{test}", safe="", errors="replace")


def _changes(document: Document) -> tuple[list[Changes], list[Changes]]:
    found: dict[tuple[bool, Kind], list[Difference]] = {}
    for each in differences(document.changes):
        found.setdefault((each.change.gates, each.change.kind), []).append(each)
    kinds = [Changes(kind, gates, tuple(same)) for (gates, kind), same in found.items()]
    return [each for each in kinds if each.gates], [each for each in kinds if not each.gates]


def _files(document: Document) -> list[File]:
    rows = []
    for file, cells in by_file(document.cells).items():
        counts = {column.kernel: Counter[Outcome]() for column in document.columns}
        for cell in cells:
            counts.setdefault(cell.kernel, Counter())[cell.outcome] += 1
        folder, slash, name = file.rpartition("/")
        tests = len({cell.test for cell in cells})
        suite = page_data.suite_of(file)
        ordered = [{each: found[each] for each in Outcome if found[each]} for found in counts.values()]
        rows.append(File(folder + slash, name, suite, tests, tuple(ordered)))
    return rows


class _Served:
    """The texts of red cells for a reader without JavaScript: equal ones of a finding once, and not without end."""

    def __init__(self) -> None:
        self._left = _SERVED
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
    more = f" and {_many(variants, 'variant')} of them" if variants else ""
    return _many(len(bases), "kernel") + more


def _many(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _source(name: str) -> Markup:
    return Markup((_PAGE / name).read_text(encoding="utf-8"))  # noqa: S704 - our own file


def _script() -> Markup:
    parts = [_source(f"{name}.js") for name in ("data", "matrix", "cell")]
    # a run without a cell has nothing to unfold
    return Markup('"use strict";\nif (document.getElementById("table")) (() => {\n%s})();\n') % Markup("\n").join(parts)


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # everything that is printed is somebody's text, or a number
        finalize=lambda value: plain(value) if type(value) is str else value,
    )
    environment.filters |= {"first_line": first_line, "spoken": pictures.spoken, "many": _many}
    environment.globals |= {
        "fragment": fragment, "signs": {outcome: text_sign(outcome.sign) for outcome in Outcome},
        "listed": _LISTED, "of_costs": {Kind.COSTLIER, Kind.CHEAPER}, "open": _OPEN, "upright": _UPRIGHT,
    }  # fmt: skip
    return environment.get_template("page.html.j2")
