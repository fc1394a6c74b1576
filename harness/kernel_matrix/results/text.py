"""Prepare text from guests for display: no escape sequences, no control characters, limited length. Pure."""

from __future__ import annotations

import re

#: CSI and OSC sequences, and the short ones (ECMA-48)
_ANSI = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?")
_LINE_END = re.compile(r"\r+\n?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: an unpaired surrogate, which cannot be encoded as UTF-8
_SURROGATE = re.compile("[\ud800-\udfff]")
#: most characters of a first line
_LINE = 300


def plain(text: str) -> str:
    """Remove escape sequences and control characters; replace what cannot be encoded by a replacement character."""
    # the input may have megabytes, and most of it is plain already
    if "\x1b" in text or "\x9b" in text:
        text = _ANSI.sub("", text)
    if "\r" in text:
        text = _LINE_END.sub("\n", text)
    text = _CONTROL.sub("", text)
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def first_line(text: str, limit: int = _LINE) -> str:
    """Return the first line that is not blank, cut to ``limit`` characters."""
    # the rest is not needed, and a console has megabytes
    lines = plain(text[: limit * 20]).splitlines()
    line = next((candidate.strip() for candidate in lines if candidate.strip()), "")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def reason(text: str, limit: int = _LINE) -> str:
    """Return the reason from a failure's text: pytest's first ``E`` line, or else the first line."""
    _, separator, error = text.partition("\nE ")
    return (first_line(error, limit) if separator else "") or first_line(text, limit)


def capped(text: str, limit: int, whole: str) -> str:
    """Return ``text`` for display; replace the middle of a longer one by a line that names where the whole text is."""
    left = len(text) - limit
    if left <= 0:
        return plain(text)
    half = limit // 2
    line = f"\n… {left:,} characters are left out here: {whole} has the whole text …\n"
    return plain(text[:half]) + line + plain(text[len(text) - half :])
