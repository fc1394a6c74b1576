"""A page of docs/ that a tool makes: written, or checked to be up to date."""

from __future__ import annotations

import sys
from pathlib import Path


def main(arguments: list[str], page: Path, text: str, source: str) -> int:
    """Write the page; with ``--check`` only check that it is up to date with its source. Return the exit status."""
    if "--check" not in arguments:
        page.write_text(text)
    elif page.read_text() != text:
        print(f"docs/{page.name} differs from {source}: run `nox -s docs`", file=sys.stderr)
        return 1
    return 0
