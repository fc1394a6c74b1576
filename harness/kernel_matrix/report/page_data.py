"""What the report's page carries as data: every cell in a few characters, every text once. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kernel_matrix.results.document import Document
from kernel_matrix.results.findings import by_file
from kernel_matrix.shared import expect
from kernel_matrix.shared.cells import Cell, Outcome
from kernel_matrix.shared.features import plain_kernel
from kernel_matrix.shared.text import capped, first_line, plain

#: characters of one text, and of all texts together; beyond it a text is no more than its beginning
_TEXT, _TEXTS = 100_000, 16_000_000
_SHORT = 1000
#: stands for the kernel in a test's command; plain enough to be quoted by nothing
_KERNEL = "@kernel@"
#: what outcome a cell has, a character a column
_NO_CELL = " "
_CODES = {outcome: chr(ord("a") + number) for number, outcome in enumerate(Outcome)}


@dataclass(slots=True)
class Texts:
    """Texts by number, equal ones once."""

    texts: list[str] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)
    _left: int = _TEXTS

    def fit(self, text: str) -> str:
        """Return the text as it is shown; each text is cut only once all of them are too much."""
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
    """Return what there is to read of a cell, in the order in which it is read."""
    detail = "Why" if cell.outcome.green else "Failure"
    return (
        ("Diagnosis", cell.diagnosis),
        (detail, cell.detail),
        ("Verifier log", cell.verifier),
        ("Kernel log", cell.log),
    )


def of(document: Document, consoles: Mapping[str, str], texts: Texts) -> dict[str, Any]:
    """Return the data of the page, ready for JSON: tests by file, outcomes as one string a test, texts by number."""
    columns = {column.kernel: number for number, column in enumerate(document.columns)}
    files: list[dict[str, Any]] = []
    for file, cells in by_file(document.cells).items():
        tests: dict[str, list[Cell]] = {}
        for cell in cells:
            tests.setdefault(cell.test, []).append(cell)
        rows = [_test(test, same, columns, texts) for test, same in tests.items()]
        files.append({"file": _valid(file), "suite": suite_of(file), "tests": rows})
    return {
        "columns": [
            {"kernel": _valid(each.kernel), "release": _valid(each.release), "version": _valid(each.version),
             "config": _valid(each.config), "base": _valid(plain_kernel(each.kernel))}
            for each in document.columns
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
        found = [(title, texts.add(text)) for title, text in parts(cell) if text]
        if found:
            read[number] = found
    row: dict[str, Any] = {"test": _valid(test), "outcomes": "".join(outcomes), "ms": durations}
    if command := expect.rerun(test, _KERNEL):
        row["command"] = _valid(command)
    return row | ({"parts": read} if read else {})


def _changes(document: Document, columns: Mapping[str, int]) -> list[tuple[int, str, str]]:
    """Return the changes of cells: column, test, what changed."""
    known = {(cell.kernel, cell.test) for cell in document.cells}
    found = []
    for each in document.changes:
        if (each.kernel, each.what) in known:
            note = f" ({first_line(each.note)})" if each.note else ""
            line = f"{each.kind}: {first_line(each.before) or '-'} → {first_line(each.after) or '-'}{note}"
            found.append((columns[each.kernel], _valid(each.what), line))
    return found


def script(data: Mapping[str, Any]) -> str:
    """Return JSON for a script element: no tag, comment or entity can begin in it."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def suite_of(file: str) -> str:
    """Return the folder below the folder of all tests, which is the program or the subject; the rest is other."""
    folder, slash, _ = file.partition("/")[2].partition("/")
    return plain(folder) if slash and file.endswith(".py") else "other"


def text_sign(sign: str) -> str:
    """Return a sign that no font takes for a picture in colours."""
    return sign + "\ufe0e"


def _valid(text: str) -> str:
    """Return a text that can be written as UTF-8."""
    return text.encode("utf-8", "replace").decode()
