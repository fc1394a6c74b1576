"""The data in the report's page: every cell in a few characters, every text once. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from kernel_matrix.results.document import Document
from kernel_matrix.results.findings import by_file
from kernel_matrix.results.text import capped, first_line, plain
from kernel_matrix.shared.outcomes import expect
from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from kernel_matrix.shared.outcomes.features import plain_kernel

#: characters of one text, and of all texts together; after that, only the beginning of a text is written
_TEXT, _TEXTS = 100_000, 16_000_000
_SHORT = 1000
#: replaces the kernel in a test's command; no shell has to quote it
_KERNEL = "@kernel@"
#: the outcome of a cell, one character for each column
_NO_CELL = " "
_CODES = {outcome: chr(ord("a") + number) for number, outcome in enumerate(Outcome)}


@dataclass(slots=True)
class Texts:
    """Numbered texts; equal texts have one number."""

    texts: list[str] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)
    _left: int = _TEXTS

    def fit(self, text: str) -> str:
        """Return the text as it is shown: it is cut short once all texts together are too long."""
        shown = capped(text, _TEXT if self._left > 0 else _SHORT, "results.jsonl")
        self._left -= len(shown)
        return shown

    def add(self, text: str) -> int:
        """Return the text's number; -1 for an empty one."""
        if not text:
            return -1
        if text not in self._numbers:
            self._numbers[text] = len(self.texts)
            self.texts.append(self.fit(text))
        return self._numbers[text]


def parts(cell: Cell) -> tuple[tuple[str, str], ...]:
    """Return the titles and texts of a cell, in the order in which they are read."""
    detail = "Why" if cell.outcome.green else "Failure"
    return (
        ("Diagnosis", cell.diagnosis),
        (detail, cell.detail),
        ("Verifier log", cell.verifier),
        ("Kernel log", cell.log),
        ("Observed", "\n".join(f"{name}: {value}" for name, value in cell.observed)),
    )


def of(document: Document, consoles: Mapping[str, str], texts: Texts) -> dict[str, Any]:
    """Return the page's data for JSON: tests by file, the outcomes of a test as one string, texts by number."""
    columns = {column.kernel: number for number, column in enumerate(document.columns)}
    files: list[dict[str, Any]] = []
    for file, cells in by_file(document.cells).items():
        tests: dict[str, list[Cell]] = {}
        for cell in cells:
            tests.setdefault(cell.test, []).append(cell)
        rows = [_test(test, same, columns, texts) | _loader(test, document.loaders) for test, same in tests.items()]
        files.append({"file": _valid(file), "suite": suite_of(file), "tests": rows})
    return {
        "columns": [
            {"kernel": _valid(column.kernel), "release": _valid(column.release), "version": _valid(column.version),
             "config": _valid(column.config), "base": _valid(plain_kernel(column.kernel))}
            for column in document.columns
        ],
        "outcomes": {
            _CODES[outcome]: {"name": str(outcome), "sign": text_sign(outcome.sign), "green": outcome.green,
                              "console": outcome.traits.cut_short}
            for outcome in Outcome
        },
        "files": files,
        "changes": _changes(document, columns),
        "consoles": {kernel: texts.add(text) for kernel, text in consoles.items()},
        "texts": texts.texts,
    }  # fmt: skip


def _test(test: str, cells: list[Cell], columns: Mapping[str, int], texts: Texts) -> dict[str, Any]:
    outcomes, durations = [_NO_CELL] * len(columns), [0] * len(columns)
    read: dict[int, list[tuple[str, int]]] = {}
    for cell in cells:
        number = columns[cell.kernel]
        outcomes[number] = _CODES[cell.outcome]
        durations[number] = round(cell.duration * 1000)
        numbered = [(title, texts.add(text)) for title, text in parts(cell) if text]
        if numbered:
            read[number] = numbered
    row: dict[str, Any] = {"test": _valid(test), "outcomes": "".join(outcomes), "ms": durations}
    if command := expect.rerun(test, _KERNEL):
        row["command"] = _valid(command)
    return row | ({"parts": read} if read else {})


def _loader(test: str, loaders: Collection[str]) -> dict[str, str]:
    loader = expect.loader_of(test, loaders)
    return {"loader": loader} if loader else {}


def _changes(document: Document, columns: Mapping[str, int]) -> list[tuple[int, str, str]]:
    """Return the changes of cells: column, test, a line about the change."""
    present = {(cell.kernel, cell.test) for cell in document.cells}
    rows = []
    for change in document.changes:
        if (change.kernel, change.what) in present:
            note = f" ({first_line(change.note)})" if change.note else ""
            line = f"{change.kind}: {first_line(change.before) or '-'} → {first_line(change.after) or '-'}{note}"
            rows.append((columns[change.kernel], _valid(change.what), line))
    return rows


def script(data: Mapping[str, Any]) -> str:
    """Return JSON for a script element: it has no tag, comment or entity."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def suite_of(file: str) -> str:
    """Return the folder below the folder of all tests, such as a program; "other" for all other files."""
    folder, slash, _ = file.partition("/")[2].partition("/")
    return plain(folder) if slash and file.endswith(".py") else "other"


def text_sign(sign: str) -> str:
    """Return a sign that no font shows as a coloured emoji."""
    return sign + "\ufe0e"


def _valid(text: str) -> str:
    """Return the text with characters replaced that UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()
