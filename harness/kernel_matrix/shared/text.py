"""Texts of guests made fit to be shown: no escape sequences, no control characters, no more than can be read. Pure."""

from __future__ import annotations

import re

#: CSI and OSC sequences, and the short ones (ECMA-48)
_ANSI = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?")
_LINE_END = re.compile(r"\r+\n?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: half a pair: cannot be written as UTF-8
_SURROGATE = re.compile("[\ud800-\udfff]")
#: characters of a first line
_LINE = 300


def plain(text: str) -> str:
    """Leave out escape sequences and control characters; what cannot be encoded becomes a replacement character."""
    # megabytes come here, and most of them are plain already
    if "\x1b" in text or "\x9b" in text:
        text = _ANSI.sub("", text)
    if "\r" in text:
        text = _LINE_END.sub("\n", text)
    text = _CONTROL.sub("", text)
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def first_line(text: str, limit: int = _LINE) -> str:
    """Return the first line that says something, cut to ``limit`` characters."""
    # what follows cannot be part of it, and a console has megabytes
    lines = plain(text[: limit * 20]).splitlines()
    line = next((each.strip() for each in lines if each.strip()), "")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def reason(text: str, limit: int = _LINE) -> str:
    """Return the line of a failure's text that says why: pytest's first ``E`` line, otherwise the first line."""
    _, found, said = text.partition("\nE ")
    return (first_line(said, limit) if found else "") or first_line(text, limit)


def capped(text: str, limit: int, whole: str) -> str:
    """Return ``text`` fit to be shown: of a longer one its beginning, its end, and a line naming who has the whole."""
    left = len(text) - limit
    if left <= 0:
        return plain(text)
    half = limit // 2
    line = f"\n… {left:,} characters are left out here: {whole} has the whole text …\n"
    return plain(text[:half]) + line + plain(text[len(text) - half :])
