"""A result set as Markdown, for the summary of a CI run and for a comment on a pull request. Pure.

GitHub takes 65,536 characters in a comment and 1 MiB in a step's summary. A text that is too long loses its least
important rows, never its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kernel_matrix.report.terminal import counts, legend
from kernel_matrix.results.document import Document
from kernel_matrix.results.findings import Difference, Finding, by_file, by_kernel, differences, findings, unchanged
from kernel_matrix.results.matrix import summary_line
from kernel_matrix.results.text import first_line

LIMIT = 65_000
#: characters of a row's free text, and of every other text from outside
_TEXT, _NAME = 300, 200
#: notes of the run that are shown
_NOTES = 20
#: kernels that a row names
_NAMED = 30
#: rows that gate, and red rows, that come before the counts when not all rows fit
_FIRST = 50


@dataclass(frozen=True, slots=True)
class _Row:
    #: the index of its section
    section: int
    #: lower is more important
    rank: int
    text: str


def markdown(document: Document, limit: int = LIMIT) -> str:
    """Return the result set in at most ``limit`` characters: head, changes, red cells, counts by file."""
    sections = [_changes(document), _red(document), _counts(document)]
    heads = [_changes_head(document), _red_head(document), _counts_head(document)]
    rows = [row for section in sections for row in section]
    # with room for the line that says that rows are missing
    lengths = [len(head) + 100 for head in heads]
    room = limit - len(_head(document)) - sum(lengths)
    kept: set[int] = set()
    for row in sorted(rows, key=lambda row: row.rank):
        room -= len(row.text) + 1
        if room < 0:
            break
        kept.add(id(row))
    text = _head(document)
    for head, section in zip(heads, sections, strict=True):
        shown = [row.text for row in section if id(row) in kept]
        left = len(section) - len(shown)
        more = f"\n… {left} more: `matrix.html` and `results.jsonl` have all\n" if left else ""
        text += head + "".join(f"{line}\n" for line in shown) + more
    return text[:limit]


def escape(text: str) -> str:
    """Escape the markup of Markdown tables and HTML, and GitHub's mentions."""
    for char in "\\`*_|<>[]&~#":
        text = text.replace(char, "\\" + char)
    return text.replace("@", "@\u200b").replace("\n", " ")


def _name(text: str) -> str:
    return escape(first_line(text, _NAME))


def _kernels(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(_name(name) for name in names[:_NAMED]) + more


def _head(document: Document) -> str:
    facts = [document.accelerator, *([f"part {document.shard}"] if document.shard else [])]
    notes = "".join(f"\nNote: {escape(first_line(note, _TEXT))}\n" for note in document.notes[:_NOTES])
    return f"# Kernel matrix: {summary_line(document.cells)}\n\n{_name('; '.join(facts))}\n{notes}"


# -- changes


def _changes_head(document: Document) -> str:
    gating = sum(change.gates for change in document.changes)
    if not document.changes:
        return f"\n{unchanged(document)}\n"
    return f"\n## Changes: {len(document.changes)}, {gating} of them red\n\n"


def _changes(document: Document) -> list[_Row]:
    rows = []
    for number, difference in enumerate(differences(document.changes)):
        important = 0 if number < _FIRST else 4
        rows.append(_Row(0, important if difference.change.gates else 6, _difference(difference)))
    return rows


def _difference(difference: Difference) -> str:
    change = difference.change
    note = f" ({escape(first_line(change.note, _TEXT))})" if change.note else ""
    what = f" {_name(change.what)}" if change.what else ""
    kind = f"**{change.kind}**" if change.gates else str(change.kind)
    before, after = (_name(side) or "-" for side in (change.before, change.after))
    return f"- {kind}: {_kernels(difference.kernels)}{what}: {before} → {after}{note}"


# -- red cells


def _red_head(document: Document) -> str:
    red = sum(not cell.outcome.green for cell in document.cells)
    return f"\n## Red: {red}\n\n" if red else ""


def _red(document: Document) -> list[_Row]:
    numbered = enumerate(findings(document.cells))
    return [_Row(1, 1 if number < _FIRST else 5, _finding(finding)) for number, finding in numbered]


def _finding(finding: Finding) -> str:
    why = f": {escape(first_line(finding.line, _TEXT))}" if finding.line else ""
    return f"- {finding.outcome.sign} {finding.outcome} {_kernels(finding.kernels)} {_name(finding.test)}{why}"


# -- counts by file


def _counts_head(document: Document) -> str:
    if not document.cells:
        return ""
    head = [f"{_name(column.kernel)}<br>{_name(column.release)}" for column in document.columns]
    table = f"{_fields(['tests', *head])}\n{_fields(['---', *['--:'] * len(head)])}\n"
    return f"\n## By file\n\n{legend(document.cells)}\n\n{table}"


def _counts(document: Document) -> list[_Row]:
    rows = []
    for file, cells in by_file(document.cells).items():
        row = by_kernel(cells)
        red = any(not cell.outcome.green for cell in cells)
        shown = [counts(row.get(column.kernel, [])).plain for column in document.columns]
        rows.append(_Row(2, 2 if red else 3, _fields([_name(file), *shown])))
    return rows


def _fields(fields: Iterable[str]) -> str:
    return f"| {' | '.join(fields)} |"
