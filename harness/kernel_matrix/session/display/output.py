"""Output of commands in guests: shown line by line after the kernel's name, stored whole in the run's folder."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel_matrix.shared import pytest_internals


def show(config: pytest.Config, line: str) -> None:
    """Write a line of the engine to the terminal, if there is one."""
    reporter: pytest.TerminalReporter | None = config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None:
        # the dots of passed tests may be on the current line
        reporter.write_line(f"\n{line}" if pytest_internals.column(reporter) else line)


class Outputs:
    """Receives the output of several guests at once."""

    def __init__(self, folder: Path, show: Callable[[str], None]) -> None:
        self._folder = folder
        self._show = show
        self._lock = threading.Lock()
        #: kernel -> the start of a line that is not complete yet
        self._partial: dict[str, bytes] = {}

    def path(self, kernel: str) -> Path:
        """Return the file for that kernel's output."""
        return self._folder / f"{kernel}.log"

    def receive(self, kernel: str, data: bytes) -> None:
        """Store and show data (a heartbeat is empty); called by the thread that received it."""
        if not data:
            return
        with self._lock:
            self._folder.mkdir(exist_ok=True)
            with self.path(kernel).open("ab") as file:
                file.write(data)
            *lines, rest = (self._partial.get(kernel, b"") + data).split(b"\n")
            self._partial[kernel] = rest
            for line in lines:
                self._print(kernel, line)

    def end(self, kernel: str) -> None:
        """Show the last line of a command whose output did not end with a newline."""
        with self._lock:
            if rest := self._partial.pop(kernel, b""):
                self._print(kernel, rest)

    def _print(self, kernel: str, line: bytes) -> None:
        self._show(f"{kernel}: {line.decode(errors='replace').rstrip()}")
