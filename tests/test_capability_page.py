"""docs/capabilities.md: every sentence has a note, and what the notes say is so.

A note names tests (``file::name``) and cells. A cell is written out, with kernels, row, who, setting, set and answer:
``all but 5.10: xdp attach link as nobody with nothing is ok``; minimal sets so: ``... takes PERFMON | SYS_ADMIN``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from kernel_matrix.shared.outcomes import capabilities, capability_table
from tests import test_remedies
from tests.noted_page import ROOT, NotedPage, names_of_tests, sentences, without_note
from tests.projects import HERE
from tests.test_remedies import State

_TABLES = capability_table.read(HERE.capabilities.read_text())
_PAGE = NotedPage.of(ROOT / "docs/capabilities.md")

_CELL = re.compile(
    r"(?P<kernels>[^:]+): (?P<row>.+) as (?P<who>\w+)(?: at (?P<setting>\S+))?"
    r" (?:with (?P<caps>\S+) is (?P<answer>\w+)|takes (?P<sets>.+))"
)


@pytest.mark.parametrize("line", list(_PAGE.paragraphs()), ids=lambda line: line[:40])
def test_every_sentence_has_a_note(line: str) -> None:
    """At its end; code that stands alone is no sentence."""
    if not line.startswith("EPERM |"):
        assert without_note(line) == []


def test_every_note_is_used_and_says_something() -> None:
    assert _PAGE.used() == set(_PAGE.notes)


@pytest.mark.parametrize(("name", "reference"), _PAGE.references(), ids=lambda text: text)
def test_what_a_note_says_is_so(name: str, reference: str) -> None:
    """A test is there; a cell, and minimal sets, are in the table as written, on each of the kernels."""
    assert name
    if "::" in reference:
        file, _, test = reference.partition("::")
        assert test in names_of_tests(ROOT / file)
    else:
        assert not list(_untrue(reference))


def _untrue(reference: str) -> Iterator[str]:
    """Yield each kernel on which a cell is not as written, and how it is there."""
    cell = _CELL.fullmatch(reference)
    assert cell, reference
    setting = cell["setting"] or ""
    kernels = list(_kernels(cell["kernels"], cell["row"], cell["who"]))
    assert kernels
    for kernel in kernels:
        if cell["sets"]:
            least = test_remedies.least(kernel, cell["row"], cell["who"], setting)
            sets = capabilities.show_sets(least)
            if cell["sets"] != sets:
                yield f"{kernel}: {sets}"
        else:
            caps = capabilities.parse(cell["caps"])
            answer = test_remedies.answer(State(kernel, cell["row"], cell["who"], caps, setting))
            if answer != cell["answer"]:
                yield f"{kernel}: {answer}"


def _kernels(text: str, row: str, who: str) -> Iterator[str]:
    """Yield the kernels that are named, ``all`` being those that have somebody of that name try it."""
    named, _, left_out = text.partition(" but ")
    for kernel, table in _TABLES.items():
        tried = capability_table.Context(who) in table.cells.get(row, table.minimum.get(row, {}))
        if named == "all":
            if tried and kernel not in left_out.split():
                yield kernel
        elif kernel in named.split():
            yield kernel


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("One.[^a] Two is `x. y`.[^b][^c]", ["One.[^a]", " Two is `code`.[^b][^c]"]),
        ("One. Two.[^a]", ["One.", " Two.[^a]"]),
        ("Of 5.10 and so on (6.9), yes.[^a]", ["Of 5.10 and so on (6.9), yes.[^a]"]),
        ("No end", ["No end"]),
        ("| a. b | c[^a] |", ["| a. b | c[^a] |"]),
    ],
)
def test_a_sentence_ends_where_it_ends(line: str, expected: list[str]) -> None:
    assert list(sentences(line)) == expected


@pytest.mark.parametrize(
    ("reference", "wrong"),
    [
        ("all: xdp load as nobody with BPF is EPERM", 0),
        ("6.1 5.10: xdp load as nobody with BPF is ok", 2),
        ("all but 5.10: xdp attach link as nobody with nothing is ok", 0),
        ("all: xdp attach link as nobody with nothing is ok", 1),
        ("6.1: kprobe_execve attach perf as root takes SYS_ADMIN", 0),
        ("6.1: kprobe_execve attach perf as root at perf_event_paranoid=2 takes SYS_ADMIN", 1),
    ],
)
def test_a_note_that_is_not_so_is_found(reference: str, wrong: int) -> None:
    assert len(list(_untrue(reference))) == wrong
