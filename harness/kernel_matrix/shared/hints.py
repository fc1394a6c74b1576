"""How a user types a command of the engine's, for messages that name one."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

#: set by a noxfile whose sessions stand for the commands
NOX_VARIABLE = "KERNEL_MATRIX_NOX"


def command(name: str, words: str = "") -> str:
    """Return the command with its words, such as ``kernel-matrix shell 6.1`` or ``nox -s shell -- 6.1``."""
    if os.environ.get(NOX_VARIABLE):
        session = f"nox -s {_session(name)}"
        return f"{session} -- {words}" if words else session
    return f"kernel-matrix {name} {words}".rstrip()


def argv(name: str, words: Sequence[str]) -> list[str]:
    """Return what runs that command as its user would, with this Python."""
    if os.environ.get(NOX_VARIABLE):
        return [sys.executable, "-m", "nox", "-s", _session(name), "--", *words]
    return [sys.executable, "-m", "kernel_matrix", name, *words]


def _session(name: str) -> str:
    return "kernel-matrix" if name == "matrix" else name
