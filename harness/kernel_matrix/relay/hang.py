"""What a guest does that has fallen silent: asked for in turns, from who knows most to who always answers."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from kernel_matrix.relay.machine import BootError, Machine, Tick
from kernel_matrix.vm.qmp import Monitor, QmpError

#: seconds that whoever is asked may take to answer, and what is added for each time the guest is slower
_ANSWER_SECONDS, _ANSWER_SCALED = 5.0, 1.0
#: that QEMU may take, which does not depend on what its guest does
_MONITOR_SECONDS = 5.0
#: without another line on the console, its answer is complete
_QUIET_SECONDS = 1.0
_TICK = 0.05
#: of an answer on the console: a kernel has as many lines as processors and stacks
_MOST_LINES = 200

#: kernel, Documentation/admin-guide/sysrq.rst: the tasks that wait without end, what every processor does
_KEYS = ("w", "l")


def examine(machine: Machine, console: Path, slowness: float, tick: Tick) -> str:
    """Return what is found, headed by who has answered.

    1. The agent's own process says where the worker's Python and every process is.
    2. Where nothing runs any more, the kernel is asked by the SysRq keys of the keyboard,
    3. then by an interrupt that cannot be masked (NMI): an emulated one panics and shows its stack;
    4. and QEMU tells the registers where the kernel does not answer the keys.
    """
    seconds = _ANSWER_SECONDS + _ANSWER_SCALED * slowness
    with contextlib.suppress(BootError):
        return f"what the guest was doing, asked of its agent:\n{machine.stacks(seconds)}"
    try:
        with contextlib.closing(machine.monitor(_MONITOR_SECONDS)) as monitor:
            return _kernel(monitor, _Console(console, tick, seconds))
    except (QmpError, OSError) as error:
        return f"the guest's agent does not answer, nor does QEMU: {error}"


def _kernel(monitor: Monitor, console: _Console) -> str:
    for key in _KEYS:
        chord = [{"type": "qcode", "data": name} for name in ("alt", "sysrq", key)]
        monitor.execute("send-key", keys=chord)
    console.settle()
    # what the kernel says by itself is no answer
    if "sysrq: " in (text := console.text()):
        return f"what the guest was doing, asked of its kernel (SysRq {', '.join(_KEYS)}):\n{text}"
    monitor.extend(_MONITOR_SECONDS)
    monitor.execute("inject-nmi")
    console.settle()
    text = console.text()
    by_nmi = f"; its kernel, asked by an NMI:\n{text}\n" if text else ", nor does its kernel; "
    monitor.extend(_MONITOR_SECONDS)
    registers = monitor.execute("human-monitor-command", **{"command-line": "info registers -a"})
    return f"the guest's agent does not answer{by_nmi}its processors, asked of QEMU:\n{registers}"


class _Console:
    """What comes onto a console from now on."""

    def __init__(self, path: Path, tick: Tick, seconds: float) -> None:
        self._path = path
        self._tick = tick
        self._seconds = seconds
        self._start = self._size()

    def _size(self) -> int:
        return self._path.stat().st_size

    def settle(self) -> None:
        """Wait until something has come and nothing more does, or nothing has come in time."""
        before = size = self._size()
        end = time.monotonic() + self._seconds
        changed = time.monotonic()
        while time.monotonic() < end:
            self._tick(_TICK)
            if (now := self._size()) != size:
                size, changed = now, time.monotonic()
            elif size != before and time.monotonic() - changed > _QUIET_SECONDS:
                return

    def text(self) -> str:
        """Return it."""
        with self._path.open("rb") as file:
            file.seek(self._start)
            lines = file.read().decode(errors="replace").splitlines()
        return "\n".join(lines[:_MOST_LINES])
