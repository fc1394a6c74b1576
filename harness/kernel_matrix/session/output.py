"""What commands say in their guests: shown line by line under their kernels' names, kept whole in the run's folder."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel_matrix.shared import pytest_internals


def show(config: pytest.Config, line: str) -> None:
    """Write a line of the engine's own to the terminal, if there is one."""
    reporter: pytest.TerminalReporter | None = config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None:
        # behind the dots of tests that have passed
        reporter.write_line(f"\n{line}" if pytest_internals.column(reporter) else line)


class Outputs:
    """Takes output of several guests at once."""

    def __init__(self, folder: Path, show: Callable[[str], None]) -> None:
        self._folder = folder
        self._show = show
        self._lock = threading.Lock()
        #: kernel -> the beginning of a line that has not ended
        self._begun: dict[str, bytes] = {}

    def path(self, kernel: str) -> Path:
        """Return where that kernel's output is kept."""
        return self._folder / f"{kernel}.log"

    def take(self, kernel: str, data: bytes) -> None:
        """Keep and show what has come, a sign of life may be nothing; called by the thread that has received it."""
        if not data:
            return
        with self._lock:
            self._folder.mkdir(exist_ok=True)
            with self.path(kernel).open("ab") as file:
                file.write(data)
            *lines, rest = (self._begun.get(kernel, b"") + data).split(b"\n")
            self._begun[kernel] = rest
            for line in lines:
                self._print(kernel, line)

    def end(self, kernel: str) -> None:
        """Show the last line of a command that has ended within one."""
        with self._lock:
            if rest := self._begun.pop(kernel, b""):
                self._print(kernel, rest)

    def _print(self, kernel: str, line: bytes) -> None:
        self._show(f"{kernel}: {line.decode(errors='replace').rstrip()}")
