"""Mutants made by a program: universalmutator, whose rules rewrite lines of C. Pure but for its import."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator

from kernel_matrix.commands.mutation.making.mutant import Mutant
from kernel_matrix.shared.errors import ToolMissing

#: the rules of universalmutator for every language, for those like C, and for C
_RULES = ("universal.rules", "c_like.rules", "c.rules")
#: hexadecimal digits of the digest in a name
_DIGITS = 10
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NUMBER = "0123456789"
_NAME_WITH_NUMBER = re.compile(r"\b[A-Za-z_]\w*\d\b")


def of_source(program: str, file: str, text: str) -> Iterator[Mutant]:
    """Yield a source's mutants, the same for the same text; raises ToolMissing.

    A mutant's name is made of its line's text before and after, so that it stays when other lines change.
    """
    lines = text.splitlines(keepends=True)
    occurrences: Counter[str] = Counter()
    place: dict[int, int] = {}
    for number, line in enumerate(lines, 1):
        place[number] = occurrences[line.strip()]
        occurrences[line.strip()] += 1
    seen: set[str] = set()
    for number, changed in _changes(lines):
        was = lines[number - 1]
        key = f"{file}\0{was.strip()}\0{place[number]}\0{changed.strip()}"
        name = f"g-{hashlib.sha256(key.encode()).hexdigest()[:_DIGITS]}"
        if name not in seen:
            seen.add(name)
            yield Mutant(program, name, file, text, "".join([*lines[: number - 1], changed, *lines[number:]]))


def _changes(lines: list[str]) -> list[tuple[int, str]]:
    """Return the numbers of lines, from 1, and what each becomes."""
    try:
        from universalmutator import mutator
    except ImportError as error:
        raise ToolMissing("universalmutator is missing: run `pip install universalmutator`") from error
    # it prints which rules it uses
    with contextlib.redirect_stdout(io.StringIO()):
        made = mutator.mutants_regexp(lines, list(_RULES), ignorePatterns=[])
    return [(number, changed) for number, changed, *_ in made if is_of_code(lines[number - 1], changed)]


def is_of_code(line: str, changed: str) -> bool:
    """Whether a change is one of the program's code: neither inside a string nor inside a name, such as ``__u(32+1)``.

    The rules know no tokens, and nobody makes such a mistake.
    """
    if _STRING.sub("", line) == _STRING.sub("", changed):
        return False
    torn = (name for name in _NAME_WITH_NUMBER.findall(line) if changed.count(name) < line.count(name))
    return not any(re.search(rf"\b{re.escape(name.rstrip(_NUMBER))}\(", changed) for name in torn)
