"""``--keep-guest``: the run stops at the first failure, and its guest stays up until the user ends it."""

from __future__ import annotations

import contextlib
import errno
import os
import select
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from xdist.workermanage import WorkerController

from kernel_matrix.relay.job import Job
from kernel_matrix.shared import pytest_internals, wire
from kernel_matrix.shared.errors import HarnessError
from kernel_matrix.vm import debugging

#: seconds between two checks that a kept guest is still up
_TICK = 0.5


@dataclass(frozen=True, slots=True)
class _Kept:
    kernel: str
    #: its node id and the phase that failed
    test: str
    node: WorkerController


class KeepingPlugin:
    """Hooks of the controller. In the guest, the failed test waits (kernel_matrix.guest.pytest.keeping)."""

    def __init__(self, config: pytest.Config, folder: Path, show: Callable[[str], None]) -> None:
        """Stop the run at the first failure (-x)."""
        config.option.maxfail = 1
        self._config = config
        self._folder = folder
        self._show = show
        self._kept: list[_Kept] = []

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note which guest waits, and keep the session from waiting for it."""
        node: WorkerController = report.node
        if report.failed and node.gateway.hasreceiver():
            kernel: str = node.gateway.spec.kernel
            self._kept.append(_Kept(kernel, f"{report.nodeid} ({report.when})", node))
            pytest_internals.leave_node(pytest_internals.dsession(self._config), node)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Wait for the user before xdist ends the guests."""
        alive = [kept for kept in self._kept if kept.node.gateway.hasreceiver()]
        if not alive:
            return
        for kept in alive:
            self._show(f"kept: {kept.kernel} as it is in {kept.test}; its namespaces have names (ip netns)")
            folder = debugging.started(self._folder, kept.kernel).folder
            self._show(f"  enter it from another terminal: {debugging.enter_command(folder)}")
            if self._config.option.gdb:
                self._show(f"  debug its kernel: {self._gdb(kept.kernel, folder)}")
        with contextlib.suppress(KeyboardInterrupt), _keyboard() as keyboard:
            self._show(f"{'Enter or ' if keyboard else ''}Ctrl-C ends {'it' if len(alive) == 1 else 'them'}")
            while any(kept.node.gateway.hasreceiver() for kept in alive):
                if select.select(keyboard, [], [], _TICK)[0]:
                    os.read(keyboard[0], 1 << 12)
                    return
            self._show("the kept guest has ended")

    def _gdb(self, kernel: str, folder: str) -> str:
        job = wire.decode((self._folder / f"{kernel}.json").read_bytes(), Job)
        try:
            return debugging.gdb(job.boot, folder)
        except HarnessError as error:
            return str(error)


@contextlib.contextmanager
def _keyboard() -> Iterator[list[int]]:
    """Yield the controlling terminal if this process is in its foreground; pytest has replaced standard input."""
    try:
        descriptor = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in {errno.ENXIO, errno.ENOENT}:  # this process has no terminal, or the machine has none
            raise
        yield []
        return
    try:
        yield [descriptor] if os.tcgetpgrp(descriptor) == os.getpgrp() else []
    finally:
        os.close(descriptor)
