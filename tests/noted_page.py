"""Read a page of docs/ whose sentences have notes, and whose notes name tests (``file::name``)."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_MARKERS = r"(?:\[\^[\w-]+\])+"


@dataclass(frozen=True)
class NotedPage:
    """A page: what is read, and its notes by their names."""

    text: str
    notes: dict[str, str]

    @classmethod
    def of(cls, path: Path) -> NotedPage:
        """Read a page; its notes are at its end."""
        text, _, defined = path.read_text().partition("\n[^")
        return cls(text, dict(re.findall(r"^\[\^([\w-]+)\]: (.*(?:\n    .*)*)", "[^" + defined, re.MULTILINE)))

    def paragraphs(self) -> Iterator[str]:
        """Yield each paragraph, list item and row of a table with something in it as one line."""
        for block in re.split(r"\n(?=\n|- |\|)", self.text):
            line = " ".join(block.split())
            if line and not line.startswith(("#", "|---", "| word")):
                yield line

    def used(self) -> set[str]:
        """Return the names of the notes that the text refers to."""
        return set(re.findall(r"\[\^([\w-]+)\]", self.text))

    def references(self) -> list[tuple[str, str]]:
        """Return each reference of a note, in backquotes, with the note's name."""
        return [
            (name, " ".join(code.split()))
            for name, text in self.notes.items()
            for code in re.findall(r"`([^`]+)`", text)
        ]


def sentences(line: str) -> Iterator[str]:
    """Yield the sentences of a paragraph, each with the notes that follow it; of a row the whole row."""
    if line.startswith("|"):
        yield line
        return
    words = re.sub(r"`[^`]*`", "`code`", line)
    yield from re.findall(rf".+?[.!?](?:{_MARKERS})?(?=\s|$)|.+$", words)


def without_note(line: str) -> list[str]:
    """Return the sentences of a paragraph that do not end with a note."""
    return [sentence for sentence in sentences(line) if not re.search(rf"{_MARKERS}(?: \|)?$", sentence)]


@functools.cache
def names_of_tests(path: Path) -> set[str]:
    """Return the names of a file's tests."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
