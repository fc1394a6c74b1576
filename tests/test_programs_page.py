"""docs/programs.md: every sentence has a note, every note names tests that are there, and every test is named."""

from __future__ import annotations

import pytest

from tests.noted_page import ROOT, NotedPage, names_of_tests, without_note

_PAGE = NotedPage.of(ROOT / "docs/programs.md")
#: the suites that hold the programs to this page
_SUITES = ("suites/execve", "suites/sockets", "suites/xdp")
#: what is no statement: where a program is, and what follows
_FRAMES = ("`bpf/", "Blind spots of the hook")


@pytest.mark.parametrize("line", list(_PAGE.paragraphs()), ids=lambda line: line[:40])
def test_every_sentence_has_a_note(line: str) -> None:
    if not line.startswith(_FRAMES):
        assert without_note(line) == []


def test_every_note_is_used_and_says_something() -> None:
    assert _PAGE.used() == set(_PAGE.notes)


@pytest.mark.parametrize(("name", "reference"), _PAGE.references(), ids=lambda text: text)
def test_what_a_note_names_is_a_test(name: str, reference: str) -> None:
    file, _, test = reference.partition("::")
    assert test in names_of_tests(ROOT / file), name


def test_every_test_of_the_programs_is_in_a_note() -> None:
    """A test that no sentence needs tests nothing that the page promises."""
    named = {reference for _, reference in _PAGE.references()}
    tests = {
        f"{path.relative_to(ROOT)}::{test}"
        for suite in _SUITES
        for path in (ROOT / suite).glob("test_*.py")
        for test in names_of_tests(path)
    }
    assert sorted(tests - named) == []
