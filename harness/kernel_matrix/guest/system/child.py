"""Starting a command of the user's own in the guest: what it is, where it runs, what it finds there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path("/harness")
#: where a folder that was carried in is found
CARRIED = Path("/carried")
#: where the host puts it
_ARRIVED = PROJECT / ".carried"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def words(command: Sequence[str]) -> list[str]:
    """Return the arguments to execute: a line for a shell, a program with its arguments, or a shell to type into."""
    if not command:
        return ["bash", "--norc"]
    return ["sh", "-c", *command] if len(command) == 1 else list(command)


def environment(term: str = "dumb") -> dict[str, str]:
    """Return what a command finds in its environment: the guest's, without what pytest keeps there."""
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
    """Put a folder that was carried in where it belongs; return whether there is one."""
    if not _ARRIVED.is_dir():
        return False
    if not os.path.ismount(CARRIED):
        subprocess.run(["mount", "--bind", _ARRIVED, CARRIED], check=True)
    return True


def status(returncode: int) -> int:
    """Return what a shell would call it: a command that was killed by a signal has 128 and its number."""
    return returncode if returncode >= 0 else 128 - returncode
