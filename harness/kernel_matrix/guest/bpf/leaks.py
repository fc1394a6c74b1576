"""What of BPF is in the kernel, so that what a test leaves there can be named."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from functools import cache

from kernel_matrix.guest.bpf.library import libbpf
from kernel_matrix.guest.system.deadline import wait_until
from kernel_matrix.shared.errors import let_out

_PINS = "/sys/fs/bpf"
#: kprobes, uprobes, event probes and synthetic events, a line each (kernel, Documentation/trace/kprobetrace.rst)
_PROBES = "/sys/kernel/tracing/dynamic_events"


def present() -> frozenset[str]:
    """Return what there is now: programs, maps and links by id, pins by path, probes of tracefs by definition.

    Every test asks twice, so this does without pathlib, which is most of the time where Python is emulated.
    """
    found = {f"{kind} {number}" for kind, step in _steps().items() for number in _ids(step)}
    if os.path.ismount(_PINS):
        for folder, folders, files in os.walk(_PINS, onerror=let_out):
            found |= {f"pin {folder}/{name}" for name in (*folders, *files)}
    try:
        with open(_PROBES, encoding="utf-8", errors="replace") as probes:  # noqa: PTH123
            found |= {f"probe {line.rstrip()}" for line in probes}
    except FileNotFoundError:  # tracefs is not mounted, or has none
        pass
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


#: int bpf_*_get_next_id(__u32 start_id, __u32 *next_id)
_Step = Callable[[int, object], int]


@cache
def _steps() -> dict[str, _Step]:
    return {kind: getattr(libbpf(), f"bpf_{kind}_get_next_id") for kind in ("prog", "map", "link")}


def _ids(step: _Step) -> Iterator[int]:
    number = ctypes.c_uint32(0)
    while (result := step(number.value, ctypes.byref(number))) == 0:
        yield number.value
    # bpf_obj_get_next_id(): there is no higher id; any other answer leaves the list unknown
    if result != -errno.ENOENT:
        raise OSError(-result, f"listing BPF objects above {number.value}: {os.strerror(-result)}")
