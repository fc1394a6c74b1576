"""Reading a guest's console: what belongs to which test, and why the guest ended. Pure."""

from __future__ import annotations

import re

#: what the guest's plugin writes to /dev/kmsg when a test starts; the node id follows
START_MARK = "harness: start "

_PANIC = re.compile(r"Kernel panic - not syncing: (?P<why>.*)")
#: the first line of a fault, in the order in which it explains most
_FAULTS = (
    re.compile(r"(BUG: .*)"),
    re.compile(r"(Oops: .*)"),
    re.compile(r"(general protection fault.*)"),
    _PANIC,
)


def tail(console: str, lines: int = 30) -> str:
    """Return the console's last lines, without blank ones."""
    return "\n".join([line for line in console.splitlines() if line.strip()][-lines:])


def since_test(console: str, nodeid: str) -> str:
    """Return the console from the last start of that test on; all of it when the mark is not there."""
    start = console.rfind(START_MARK + nodeid)
    return console[start:] if start >= 0 else console


def fault(console: str) -> str | None:
    """Return the line that names the kernel's fault, or None when the console shows none."""
    if not _PANIC.search(console):
        return None
    for pattern in _FAULTS:
        if match := pattern.search(console):
            return match.group(0).strip()
    return None
