"""Start a user's command in the guest: its arguments, its folder, its environment."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kernel_matrix.guest.system.deadline import wait_until
from kernel_matrix.shared.errors import ignoring
from kernel_matrix.shared.project import ARRIVED, CARRIED, HOME

#: where the payload's tar is unpacked with the user's folder
_ARRIVED = HOME / ARRIVED
#: linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36
#: state of a process that has ended
_ZOMBIE = "Z"
_libc = ctypes.CDLL(None, use_errno=True)
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


@contextmanager
def adopting() -> Iterator[list[str]]:
    """Adopt the processes that programs of the block leave behind, and kill them at its end.

    Then the list has their names.
    """
    _checked(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
    before, ended = frozenset(_children()), dict[int, str]()
    names: list[str] = []
    try:
        yield names
    finally:
        wait_until(lambda: not _kill(before, ended), "the end of what a command left running")
        _checked(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0))
        names += ended.values()


def _kill(before: frozenset[int], ended: dict[int, str]) -> bool:
    """Kill and reap this process's children but those of ``before``; return whether there were any."""
    children = {pid: child for pid, child in _children().items() if pid not in before}
    for pid, (name, state) in children.items():
        if state != _ZOMBIE:
            ended[pid] = name
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, os.WNOHANG)
    return bool(children)


def _children() -> dict[int, tuple[str, str]]:
    """Return this process's children, with their names and states."""
    children = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        # a process may end at any time
        with ignoring(errno.ENOENT, errno.ESRCH):
            # a name may have brackets
            before, _, after = path.read_text(errors="replace").rpartition(")")
            state, parent = after.split()[:2]
            if int(parent) == os.getpid():
                children[int(path.parent.name)] = (before.partition("(")[2], state)
    return children


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), "prctl")


def status(returncode: int) -> int:
    """Return the exit status as a shell does: 128 plus the signal's number for a killed command."""
    return returncode if returncode >= 0 else 128 - returncode
