"""Reading a guest's console: what belongs to which test, and why the guest ended. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

#: what the guest's plugin writes to /dev/kmsg when a test starts; the node id follows
START_MARK = "harness: start "

#: what the kernel, virtme-ng's initramfs, its init and the agent say at the end of their phase of a boot
_PHASES = ("Run /init as init process", "virtme initramfs: done", "virtme-ng-init: starting script", "harness: ready")
_PANIC = re.compile(r"Kernel panic - not syncing: (?P<why>.*)")
#: the first line of a fault, in the order in which it explains most
_FAULTS = (
    re.compile(r"(BUG: .*)"),
    re.compile(r"(Oops: .*)"),
    re.compile(r"(general protection fault.*)"),
    _PANIC,
)


def excerpt(console: str, lines: int = 30) -> str:
    """Return at most so many lines, none blank: the last, or both ends of a fault that has more.

    A fault says first where it happened, and registers and modules after that; a trace has as many lines as the stack
    was deep. Between the ends it is said how many lines are left out.
    """
    every = [line for line in console.splitlines() if line.strip()]
    line = fault(console)
    begins = len(every) if line is None else next(at for at, shown in enumerate(every) if line in shown)
    if begins >= len(every) - lines:
        return "\n".join(every[-lines:])
    tail = lines // 2
    head = lines - tail - 1
    between = f"... {len(every) - begins - head - tail} lines ..."
    return "\n".join([*every[begins : begins + head], between, *every[len(every) - tail :]])


def since_test(console: str, nodeid: str) -> str | None:
    """Return the console from the last start of that test on; None when the test has not begun."""
    start = console.rfind(START_MARK + nodeid)
    return console[start:] if start >= 0 else None


@dataclass(frozen=True, slots=True)
class Phases:
    """What a cold boot took, in seconds of the guest's clock, which begins with the kernel's."""

    #: to the start of virtme-ng's initramfs
    kernel: float
    #: to the switch to the real root
    initramfs: float
    #: virtme-ng's init, to the start of the agent
    userspace: float
    #: the agent: what it imports, and in a guest that is to be saved rehearses, before it is ready
    imports: float


def phases(console: str) -> Phases | None:
    """Return the phases of a boot from its console; None when it shows not all of them."""
    at = []
    for mark in _PHASES:
        found = re.search(rf"^\[ *(\d+\.\d+)\] {mark}", console, re.MULTILINE)
        if found is None:
            return None
        at.append(float(found[1]))
    return Phases(at[0], *(round(later - earlier, 3) for earlier, later in pairwise(at)))


def fault(console: str) -> str | None:
    """Return the line that names the kernel's fault, or None when the console shows none."""
    if not _PANIC.search(console):
        return None
    for pattern in _FAULTS:
        if match := pattern.search(console):
            # a dot is more than a line's characters: of those that end one it leaves out the newline only
            return match.group(0).splitlines()[0].strip()
    return None
