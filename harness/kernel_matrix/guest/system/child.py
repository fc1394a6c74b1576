"""Start a user's command in the guest: its arguments, its folder, its environment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from kernel_matrix.shared.project import ARRIVED, CARRIED, HOME

#: where the payload's tar is unpacked with the user's folder
_ARRIVED = HOME / ARRIVED
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def words(command: Sequence[str]) -> list[str]:
    """Return the arguments to execute: a line for a shell, a program with its arguments, or an interactive shell."""
    if not command:
        return ["bash", "--norc"]
    return ["sh", "-c", *command] if len(command) == 1 else list(command)


def environment(term: str = "dumb") -> dict[str, str]:
    """Return a command's environment: the guest's, without the variables of pytest and Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON"))}
    kernel = kept.get("HARNESS_KERNEL", "guest")
    return {
        **kept,
        "PATH": _PATH,
        "HOME": "/root",
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
        "TERM": term,
        "PS1": rf"\[\e[1m\]{kernel}\[\e[0m\] \w \$ ",
    }


def carried() -> bool:
    """Mount the user's folder at `CARRIED`; return whether there is one."""
    if not _ARRIVED.is_dir():
        return False
    if not os.path.ismount(CARRIED):
        subprocess.run(["mount", "--bind", _ARRIVED, CARRIED], check=True)
    return True


def status(returncode: int) -> int:
    """Return the exit status as a shell does: 128 plus the signal's number for a killed command."""
    return returncode if returncode >= 0 else 128 - returncode
