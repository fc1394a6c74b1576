"""Find out what a silent guest is doing: query its agent, then its kernel, then QEMU, until one of them answers."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from kernel_matrix.relay.machine import BootError, Machine, Tick
from kernel_matrix.vm.qmp import Monitor, QmpError

#: seconds to wait for an answer, and seconds added in proportion to the guest's slowness
_ANSWER_SECONDS, _ANSWER_SCALED = 5.0, 1.0
#: seconds to wait for QEMU, whose answer does not depend on the guest
_MONITOR_SECONDS = 5.0
#: seconds without new console output after which the kernel's answer is complete
_QUIET_SECONDS = 1.0
_TICK = 0.05
#: lines of the kernel's answer that are kept: it prints a stack for every processor or task
_MOST_LINES = 200

#: kernel, Documentation/admin-guide/sysrq.rst: w shows blocked tasks, l the backtrace of each active processor
_KEYS = ("w", "l")


def examine(machine: Machine, console: Path, slowness: float, tick: Tick) -> str:
    """Return what the guest is doing; the first line names the source of the answer.

    1. The agent reports the Python stack of the worker and the state of every process.
    2. Where no process runs any more, the kernel is queried through the SysRq keys of the keyboard,
    3. then by a non-maskable interrupt (NMI), on which an emulated kernel panics and prints its stack.
    4. QEMU reports the registers of a kernel that does not answer the keys.
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
    # without this mark, the new lines are not an answer to the keys
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
    """What is written to a console from now on."""

    def __init__(self, path: Path, tick: Tick, seconds: float) -> None:
        self._path = path
        self._tick = tick
        self._seconds = seconds
        self._start = self._size()

    def _size(self) -> int:
        return self._path.stat().st_size

    def settle(self) -> None:
        """Wait until there is new output and it has ended, or until the time is over."""
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
        """Return the new output, at most `_MOST_LINES` lines."""
        with self._path.open("rb") as file:
            file.seek(self._start)
            lines = file.read().decode(errors="replace").splitlines()
        return "\n".join(lines[:_MOST_LINES])
