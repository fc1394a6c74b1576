"""What guests say, made fit to be shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.results.text import capped, first_line, plain, reason

#: hypothesis leaves surrogates out by itself; what a broken console holds may have them
anything = st.text(st.characters(codec=None, exclude_categories=())) | st.text(
    st.sampled_from("\x1b[]0m;\x07\n\ra\x9b")
)


@given(anything)
def test_what_is_shown_can_be_written_and_controls_nothing(text: str) -> None:
    shown = plain(text)
    shown.encode("utf-8")
    assert all(char >= " " or char in "\t\n" for char in shown)
    assert not any("\x7f" <= char <= "\x9f" for char in shown)
    assert plain(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b(Bplain\x1b7", "plain"),
        ("one\r\ntwo\rthree\x00", "one\ntwo\nthree"),
        # CSI as one character (ECMA-48, 5.3)
        ("\x9b31mred", "red"),
        ("tab\tünïcödé 🐛", "tab\tünïcödé 🐛"),
        ("half \ud83d", "half \ufffd"),
    ],
)
def test_escape_sequences_go_and_the_text_stays(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(anything, st.integers(1, 50))
def test_a_first_line_is_one_line_within_its_limit(text: str, limit: int) -> None:
    assert len(first_line(text, limit)) <= limit
    assert len(first_line(text, limit).splitlines()) <= 1


def test_the_reason_of_a_failure_is_what_pytest_marks_as_such() -> None:
    assert (
        reason("a.py:3: in test_x\n    assert a == b\nE   AssertionError: 1 != 2\nE     more")
        == "AssertionError: 1 != 2"
    )
    assert reason("\n\nno report came\n") == "no report came"
    assert reason("first\nE ") == "first"


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    """It says where the rest is."""
    shown = capped("begin" + "x" * 1_000_000 + "end", 1000, "results.jsonl")
    assert shown.startswith("begin")
    assert shown.endswith("end")
    assert "\n… 999,008 characters are left out here: results.jsonl has the whole text …\n" in shown
    assert len(shown) < 1200
    assert capped("short", 1000, "") == "short"


def test_a_first_line_is_cut_only_past_its_limit() -> None:
    assert first_line("x" * 300) == "x" * 300
    assert first_line("x" * 301) == "x" * 299 + "…"
    assert reason("x" * 301) == "x" * 299 + "…"
    assert first_line("12345", 5) == "12345"
    assert first_line("123456", 5) == "1234…"


def test_a_first_line_is_searched_for_in_twenty_times_its_limit() -> None:
    """A console has megabytes."""
    assert first_line("\n" * 99 + "x", 5) == "x"
    assert not first_line("\n" * 100 + "x", 5)


@pytest.mark.parametrize(
    ("limit", "shown"),
    [
        (13, "0123456789abc"),
        (12, "012345\n… 1 characters are left out here: f has the whole text …\n789abc"),
        (5, "01\n… 8 characters are left out here: f has the whole text …\nbc"),
        (1, "\n… 12 characters are left out here: f has the whole text …\n"),
    ],
)
def test_what_is_left_out_is_the_middle(limit: int, shown: str) -> None:
    assert capped("0123456789abc", limit, "f") == shown
