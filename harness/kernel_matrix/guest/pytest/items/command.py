"""Run a user's command in place of tests: its exit status is the outcome, its output goes to the host."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from kernel_matrix.guest.pytest.marks import boots_with, timeout
from kernel_matrix.guest.system.upkeep import child
from kernel_matrix.shared.outcomes.features import GuestFacts
from kernel_matrix.shared.project import CARRIED, HOME

_CHUNK = 1 << 16
#: chunks to read after the command has ended: more than a pipe holds
_REST = 32
#: bytes and lines of output that a failure's text has at most
_TAIL_BYTES = 1 << 14
_TAIL_LINES = 40

#: called with each chunk of output; it sends the chunk to the host
Sink = Callable[[bytes], None]


class CommandFailed(Exception):
    """The command did not exit with 0; the text has the reason and the last lines of output."""


def name(command: Sequence[str]) -> str:
    """Return the name of a command's cells, on one line for any command."""
    return printable(shlex.join(command))


def printable(line: str) -> str:
    """Return a shell's line on one line."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in line)


class Command(pytest.Item):
    """The one test of a guest."""

    def __init__(self, *, words: Sequence[str], timeout: float | None, sink: Sink, **of_item: object) -> None:
        super().__init__(**of_item)  # type: ignore[arg-type]
        self._words = words
        self._timeout = timeout
        self._sink = sink

    def runtest(self) -> None:
        """Run the command; raises CommandFailed."""
        folder = CARRIED if child.carried() else HOME
        run(self._words, folder, self._timeout, self._sink)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> str:  # type: ignore[override]
        """Return the command's failure without a traceback, which would show only the harness."""
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return the location and name that pytest shows."""
        return self.path, None, self.name


class CommandPlugin:
    """Replaces all tests by that item."""

    def __init__(self, facts: GuestFacts, words: Sequence[str], timeout: float | None, sink: Sink) -> None:
        self._facts = facts
        self._words = words
        self._timeout = timeout
        self._sink = sink

    def pytest_collection(self, session: pytest.Session) -> None:
        """Collect nothing."""
        session.config.args[:] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Add the command as the only item."""
        title = name(self._words)
        item = Command.from_parent(
            session,
            name=title,
            # the kernel comes first, so its brackets are the first ones whatever the command contains
            nodeid=f"[{self._facts.kernel}]{title}",
            words=self._words,
            timeout=self._timeout,
            sink=self._sink,
        )
        # the command has its own limit, or none
        item.add_marker(timeout(0))
        if self._facts.variant:
            item.add_marker(boots_with(self._facts.variant))
        items[:] = [item]


def run(command: Sequence[str], folder: Path, timeout: float | None, sink: Sink) -> None:
    """Run a command until it ends; raises CommandFailed."""
    tail_bytes = bytearray()

    def forward(data: bytes) -> bytes:
        if data:
            sink(data)
            tail_bytes.extend(data)
            del tail_bytes[:-_TAIL_BYTES]
        return data

    try:
        process = subprocess.Popen(
            child.words(command),
            cwd=folder,
            env=child.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            bufsize=0,
        )
    except OSError as error:
        raise CommandFailed(f"{child.words(command)[0]}: {error.strerror}") from error
    with process:
        why = _wait(process, timeout, forward)
    if why:
        lines = tail_bytes.decode(errors="replace").splitlines()[-_TAIL_LINES:]
        raise CommandFailed("\n".join([why, *lines]))


def _wait(process: subprocess.Popen[bytes], timeout: float | None, forward: Callable[[bytes], bytes]) -> str:
    """Read the output until the command has ended; return the reason of a failure, empty for success."""
    assert process.stdout is not None
    output = process.stdout.fileno()
    os.set_blocking(output, False)
    ended = os.pidfd_open(process.pid)
    end = None if timeout is None else time.monotonic() + timeout
    watched = {output, ended}
    late = False
    try:
        while ended in watched:
            remaining = None if end is None else max(0.0, end - time.monotonic())
            ready = select.select(watched, [], [], remaining)[0]
            if output in ready and not forward(_read(output)):
                watched.discard(output)
            if ended in ready:
                watched.discard(ended)
            if not ready and not late:
                late, end = True, None
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        # processes that the command leaves running may write on, and are not waited for
        for _ in range(_REST):
            if not forward(_read(output)):
                break
    finally:
        os.close(ended)
    return f"no end within {timeout:g} s" if late else describe(process.wait())


def _read(descriptor: int) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return os.read(descriptor, _CHUNK)
    return b""


def describe(returncode: int) -> str:
    """Return how a command failed; empty for success."""
    if returncode >= 0:
        return f"exit status {returncode}" if returncode else ""
    return f"killed by {signal.Signals(-returncode).name}"
