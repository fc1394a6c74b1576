"""List the BPF objects in the kernel, so that those that a test leaves behind can be named."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from functools import cache

from kernel_matrix.guest.bpf.library import libbpf
from kernel_matrix.guest.system.deadline import wait_until
from kernel_matrix.shared.errors import reraise

_PINS = "/sys/fs/bpf"
#: kprobes, uprobes, event probes and synthetic events, a line each (kernel, Documentation/trace/kprobetrace.rst)
_PROBES = "/sys/kernel/tracing/dynamic_events"


def present() -> frozenset[str]:
    """Return what exists now: programs, maps and links by id, pins by path, probes of tracefs by definition.

    Every test calls this twice. So it does not use pathlib, which would take most of the time under emulation.
    """
    names = {f"{kind} {number}" for kind, step in _steps().items() for number in _ids(step)}
    if os.path.ismount(_PINS):
        for folder, folders, files in os.walk(_PINS, onerror=reraise):
            names |= {f"pin {folder}/{name}" for name in (*folders, *files)}
    try:
        with open(_PROBES, encoding="utf-8", errors="replace") as probes:  # noqa: PTH123
            names |= {f"probe {line.rstrip()}" for line in probes}
    except FileNotFoundError:  # tracefs is not mounted, or has no such file
        pass
    return frozenset(names)


def wait_for_release(before: frozenset[str]) -> frozenset[str]:
    """Wait until nothing is left that was not there ``before``; return what is left after the limit.

    The kernel frees programs and maps after an RCU grace period, so this wait tolerates no leak.
    """
    try:
        wait_until(lambda: not present() - before, "release", seconds=1)
    except TimeoutError:
        return present() - before
    return frozenset()


def program_ids() -> Iterator[int]:
    """Yield the kernel's ids of all programs that are loaded."""
    return _ids(_steps()["prog"])


#: int bpf_*_get_next_id(__u32 start_id, __u32 *next_id)
_Step = Callable[[int, object], int]


@cache
def _steps() -> dict[str, _Step]:
    return {kind: getattr(libbpf(), f"bpf_{kind}_get_next_id") for kind in ("prog", "map", "link")}


def _ids(step: _Step) -> Iterator[int]:
    number = ctypes.c_uint32(0)
    while (result := step(number.value, ctypes.byref(number))) == 0:
        yield number.value
    # bpf_obj_get_next_id(): ENOENT means that there is no higher id; after any other error the list is incomplete
    if result != -errno.ENOENT:
        raise OSError(-result, f"listing BPF objects above {number.value}: {os.strerror(-result)}")
