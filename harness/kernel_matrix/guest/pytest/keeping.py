"""Keep a guest unchanged when its first test fails, and let a user enter it through its own port."""

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
from kernel_matrix.guest.system.upkeep import terminal
from kernel_matrix.shared.channel import frames
from kernel_matrix.shared.channel.protocol import ENTER_NAME

#: folder in which `ip netns` looks for names
_NAMES = Path("/run/netns")
_CHUNK = 1 << 16
#: seconds between two checks whether the host has connected
_PAUSE = 0.1

#: sends a heartbeat to the host
Beat = Callable[[bytes], None]


class KeepPlugin:
    """Stops after a failed test, before its fixtures are torn down."""

    def __init__(self, beat: Beat) -> None:
        self._beat = beat

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Wait after the report of a failure has been sent; the host ends this guest."""
        if report.failed:
            name_namespaces()
            threading.Thread(target=_live, args=(self._beat,), daemon=True).start()
            serve()


def name_namespaces() -> None:
    """Name the test's network namespaces, for commands such as ``ip netns exec test-1 ip link``."""
    seen = {str(Path("/proc/self/ns/net").readlink())}
    for path in sorted(Path("/proc/self/fd").iterdir(), key=lambda path: int(path.name)):
        try:
            link = str(path.readlink())
        except FileNotFoundError:  # the descriptor of the listing itself
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
    """Serve connections from the host, one after another, for ever."""
    while True:
        # closed after each connection, which drops its unread data
        port = agent.open_port(ENTER_NAME)
        try:
            # a port without a connection reads as end of file
            while not (data := os.read(port, _CHUNK)):
                select.select([], [], [], _PAUSE)
            terminal.serve(port, port, data)
        finally:
            os.close(port)
