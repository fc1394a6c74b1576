"""Write docs/commands.md: every command and option, from the parsers of ``--help`` (``nox -s docs`` runs this)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import generated_page

from kernel_matrix import __main__ as command_line
from kernel_matrix.config import options

PAGE = Path(__file__).resolve().parents[2] / "docs" / "commands.md"
_HEAD = """\
# Commands

Made from the commands' own help by `nox -s docs`: do not edit. `nox -s NAME -- WORDS` is `kernel-matrix NAME WORDS` in
this repository's environment; the session `kernel-matrix` is the command `matrix`.
"""


def page() -> str:
    """Return the page's text."""
    parser = command_line.parser()
    sections = [_HEAD]
    for action in parser._actions:  # noqa: SLF001 - argparse has no public list of actions
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            meanings = {choice.dest: choice.help or "" for choice in action._choices_actions}  # noqa: SLF001
            for name, command in sorted(action.choices.items()):
                sections.append("\n".join(_section(name, meanings.get(name, ""), command)))
    return "\n".join(sections)


def _section(name: str, meaning: str, command: argparse.ArgumentParser) -> Iterator[str]:
    yield f"## {name}\n"
    yield f"{meaning[:1].upper()}{meaning[1:]}.\n"
    if name == "matrix":
        matrix = argparse.ArgumentParser(add_help=False)
        options.add_all(matrix.add_argument)
        yield from _table(matrix._actions)  # noqa: SLF001
        yield "All of pytest's options work, too.\n"
        return
    yield from _table(command._actions)  # noqa: SLF001
    if command.epilog:
        yield f"{command.epilog}\n"


def _table(actions: Iterable[argparse.Action]) -> Iterator[str]:
    rows = [_row(action) for action in actions if "--help" not in action.option_strings]
    rows = [row for row in rows if row]
    if rows:
        yield "\n".join(["| option | meaning |", "|---|---|", *rows]) + "\n"


def _row(action: argparse.Action) -> str:
    """Return the row of an option or argument; empty for a hidden one."""
    if action.help == argparse.SUPPRESS:
        return ""
    values = "\\|".join(map(str, action.choices)) if action.choices else action.metavar or action.dest.upper()
    names = ", ".join(action.option_strings)
    shown = str(values) if not names else names if action.nargs == 0 else f"{names} {values}"
    meaning = (action.help or "").replace("|", "\\|").replace("%%", "%")
    return f"| `{shown}` | {meaning} |"


if __name__ == "__main__":
    sys.exit(generated_page.main(sys.argv[1:], PAGE, page(), "the commands' help"))
