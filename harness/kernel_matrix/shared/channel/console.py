"""Read a guest's console: which part belongs to which test, and why the guest ended. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

#: the guest's plugin writes this and the node id to /dev/kmsg when a test starts
START_MARK = "harness: start "

#: the messages of the kernel, virtme-ng's initramfs, its init and the agent at the end of their phase of a boot
_PHASES = ("Run /init as init process", "virtme initramfs: done", "virtme-ng-init: starting script", "harness: ready")
_PANIC = re.compile(r"Kernel panic - not syncing: (?P<why>.*)")
#: the first line of a fault; the most informative one comes first
_FAULTS = (
    re.compile(r"(BUG: .*)"),
    re.compile(r"(Oops: .*)"),
    re.compile(r"(general protection fault.*)"),
    _PANIC,
)


def excerpt(console: str, lines: int = 30) -> str:
    """Return at most so many lines, none blank: the last ones, or both ends of a longer fault.

    A fault first names the place, then registers and modules, and its trace is as long as the stack was deep. A line
    between the ends has the number of lines that are left out.
    """
    all_lines = [line for line in console.splitlines() if line.strip()]
    line = fault(console)
    begins = len(all_lines) if line is None else next(at for at, shown in enumerate(all_lines) if line in shown)
    if begins >= len(all_lines) - lines:
        return "\n".join(all_lines[-lines:])
    tail = lines // 2
    head = lines - tail - 1
    between = f"... {len(all_lines) - begins - head - tail} lines ..."
    return "\n".join([*all_lines[begins : begins + head], between, *all_lines[len(all_lines) - tail :]])


def since_test(console: str, nodeid: str) -> str | None:
    """Return the console from the last start of a test; None when the test has not begun."""
    start = console.rfind(START_MARK + nodeid)
    return console[start:] if start >= 0 else None


@dataclass(frozen=True, slots=True)
class Phases:
    """The phases of a cold boot in seconds of the guest's clock, which starts with the kernel."""

    #: to the start of virtme-ng's initramfs
    kernel: float
    #: to the switch to the real root
    initramfs: float
    #: virtme-ng's init, to the start of the agent
    userspace: float
    #: the agent, until it is ready: its imports, and its rehearsal in a guest that is to be saved
    imports: float


def phases(console: str) -> Phases | None:
    """Return the phases of a boot from its console; None when one of them is missing."""
    at = []
    for mark in _PHASES:
        match = re.search(rf"^\[ *(\d+\.\d+)\] {mark}", console, re.MULTILINE)
        if match is None:
            return None
        at.append(float(match[1]))
    return Phases(at[0], *(round(later - earlier, 3) for earlier, later in pairwise(at)))


def fault(console: str) -> str | None:
    """Return the line that names the kernel's fault; None when the console has none."""
    if not _PANIC.search(console):
        return None
    for pattern in _FAULTS:
        if match := pattern.search(console):
            # a dot matches every line end except the newline
            return match.group(0).splitlines()[0].strip()
    return None
