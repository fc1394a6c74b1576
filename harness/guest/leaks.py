"""What of BPF is in the kernel, so that what a test leaves there can be named."""

from __future__ import annotations

import ctypes
from pathlib import Path

from harness.guest.deadline import wait_until
from harness.guest.library import libbpf

_PINS = Path("/sys/fs/bpf")
_TRACEFS = Path("/sys/kernel/tracing")


def present() -> frozenset[str]:
    """Return what there is now: programs, maps and links by id, pins by path, probes of tracefs by definition."""
    found = {f"{kind} {number}" for kind in ("prog", "map", "link") for number in _ids(kind)}
    if _PINS.is_mount():
        found |= {f"pin {path}" for path in _PINS.rglob("*")}
    for name in ("kprobe_events", "uprobe_events"):
        events = _TRACEFS / name
        if events.exists():
            found |= {f"{name} {line}" for line in events.read_text().splitlines()}
    return frozenset(found)


def wait_for_release(before: frozenset[str]) -> frozenset[str]:
    """Return what is there now and was not before, once it is nothing or the limit is reached.

    The kernel frees programs and maps after a grace period of RCU, so a moment of waiting is no tolerance.
    """
    try:
        wait_until(lambda: not present() - before, "release", seconds=1)
    except TimeoutError:
        return present() - before
    return frozenset()


def _ids(kind: str) -> list[int]:
    step = getattr(libbpf(), f"bpf_{kind}_get_next_id")
    step.argtypes = [ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32)]
    numbers: list[int] = []
    number = ctypes.c_uint32(0)
    while step(number.value, ctypes.byref(number)) == 0:
        numbers.append(number.value)
    return numbers
