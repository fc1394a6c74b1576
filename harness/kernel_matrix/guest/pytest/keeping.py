"""A guest that stays as it is when its first test fails, and can be entered at a port of its own."""

from __future__ import annotations

import os
import select
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from kernel_matrix.guest import agent
from kernel_matrix.guest.system import terminal
from kernel_matrix.shared import frames
from kernel_matrix.shared.protocol import ENTER_NAME

#: where `ip netns` looks for names
_NAMES = Path("/run/netns")
_CHUNK = 1 << 16
#: seconds between two looks whether the host has come
_PAUSE = 0.1

#: says to the host that this guest is alive
Beat = Callable[[bytes], None]


class KeepPlugin:
    """Stops where a test has failed, with its fixtures as they are."""

    def __init__(self, beat: Beat) -> None:
        self._beat = beat

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Stay, now that the report is on its way; the host ends this guest."""
        if report.failed:
            name_namespaces()
            threading.Thread(target=_live, args=(self._beat,), daemon=True).start()
            serve()


def name_namespaces() -> None:
    """Give names to the network namespaces that the test holds: ``ip netns exec test-1 ip link``."""
    seen = {str(Path("/proc/self/ns/net").readlink())}
    for path in sorted(Path("/proc/self/fd").iterdir(), key=lambda path: int(path.name)):
        try:
            link = str(path.readlink())
        except FileNotFoundError:  # the one that lists them
            continue
        if link.startswith("net:[") and link not in seen:
            _NAMES.mkdir(exist_ok=True)
            name = _NAMES / f"test-{len(seen)}"
            name.touch()
            subprocess.run(["mount", "--bind", f"/proc/{os.getpid()}/fd/{path.name}", name], check=True)
            seen.add(link)


def _live(beat: Beat) -> None:
    never = threading.Event()
    while not never.wait(frames.BEAT):
        beat(b"")


def serve() -> NoReturn:
    """Serve whoever comes, one after another."""
    while True:
        # closed after each: what nobody has read of the last conversation is dropped
        port = agent.open_port(ENTER_NAME)
        try:
            # a port that nobody has connected to reads as ended
            while not (data := os.read(port, _CHUNK)):
                select.select([], [], [], _PAUSE)
            terminal.serve(port, port, data)
        finally:
            os.close(port)
