"""Perf events that BPF programs are attached to or write to: perf_event_open(2), ioctl(2), tracefs.

As in `bpf_calls`, the caller's `Undo` releases what is created, and a refusal is a StepError.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import mmap
import os
from collections.abc import Callable
from ctypes import c_size_t, c_uint32, c_uint64
from pathlib import Path

from kernel_matrix.arch import CURRENT
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.bpf.undo import Undo

TRACEFS = Path("/sys/kernel/tracing")
_PMUS = Path("/sys/bus/event_source/devices")
#: linux/perf_event.h, numbered as in asm-generic/ioctl.h
_IOC_SET_BPF, _IOC_ENABLE = 0x40042408, 0x2400
_TYPE_SOFTWARE, _TYPE_TRACEPOINT, _DUMMY, _BPF_OUTPUT, _SAMPLE_RAW, _FD_CLOEXEC = 1, 2, 9, 10, 1 << 10, 1 << 3

_libc = ctypes.CDLL(None, use_errno=True)


class _PerfAttr(ctypes.Structure):
    """struct perf_event_attr of linux/perf_event.h, its second version (PERF_ATTR_SIZE_VER1)."""

    _fields_ = (
        ("type", c_uint32),
        ("size", c_uint32),
        ("config", c_uint64),
        ("sample_period", c_uint64),
        ("sample_type", c_uint64),
        ("read_format", c_uint64),
        ("flags", c_uint64),
        ("wakeup_events", c_uint32),
        ("bp_type", c_uint32),
        ("config1", c_uint64),
        ("config2", c_uint64),
    )


def _open(attributes: _PerfAttr, pid: int, cpu: int, undo: Undo, what: str) -> int:
    attributes.size = ctypes.sizeof(attributes)
    number = CURRENT.syscalls["perf_event_open"]
    fd = _libc.syscall(number, ctypes.byref(attributes), pid, cpu, -1, c_size_t(_FD_CLOEXEC))
    if fd < 0:
        raise StepError(ctypes.get_errno(), "attach", what)
    undo.callback(os.close, fd)
    return int(fd)


@functools.cache
def _pmu(name: str) -> int:
    """Return the number of the kernel's kprobe or uprobe PMU, which is fixed until the next boot."""
    return int((_PMUS / name / "type").read_text())


def kprobe_event(symbol: str, undo: Undo) -> int:
    """Open a perf event for a kernel function's entry; return its fd."""
    name = ctypes.create_string_buffer(symbol.encode())
    attributes = _PerfAttr(type=_pmu("kprobe"), config1=ctypes.addressof(name))
    return _open(attributes, -1, 0, undo, f"kprobe {symbol}")


def uprobe_event(path: Path, offset: int, undo: Undo) -> int:
    """Open a perf event for an instruction in a file; return its fd."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    attributes = _PerfAttr(type=_pmu("uprobe"), config1=ctypes.addressof(name), config2=offset)
    return _open(attributes, -1, 0, undo, f"uprobe {path}+{offset:#x}")


def software_event(undo: Undo) -> int:
    """Open a perf event of a CPU that never fires; return its fd."""
    return _open(_PerfAttr(type=_TYPE_SOFTWARE, config=_DUMMY), -1, 0, undo, "software event")


def tracepoint_event(number: int, undo: Undo) -> int:
    """Open a perf event for a tracepoint by its number; return its fd."""
    return _open(_PerfAttr(type=_TYPE_TRACEPOINT, config=number), -1, 0, undo, f"tracepoint {number}")


def counter(number: int, undo: Undo) -> int:
    """Open a perf event that counts how often this process passes a tracepoint; return its fd, for `count`."""
    return _open(_PerfAttr(type=_TYPE_TRACEPOINT, config=number), 0, -1, undo, f"tracepoint {number}")


def count(event: int) -> int:
    """Read what a `counter` has counted."""
    return int.from_bytes(os.read(event, 8), "little")


def tracepoint_number(name: str) -> int:
    """Read a tracepoint's number (``syscalls/sys_enter_connect``) from tracefs."""
    fd = _opened(f"{TRACEFS}/events/{name}/id", os.O_RDONLY, f"tracepoint {name.replace('/', ':')}")
    try:
        return int(os.read(fd, 16))
    finally:
        os.close(fd)


def _opened(path: str, flags: int, what: str) -> int:
    """Open a file of tracefs, the first step of attaching through it; return its fd."""
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise StepError(error.errno or 0, "attach", what) from error


def address_of(symbol: str) -> int:
    """Return the address of a function of the kernel; raises KeyError when there is none."""
    with Path("/proc/kallsyms").open() as symbols:
        for line in symbols:
            address, _, name = line.split()[:3]
            if name == symbol:
                return int(address, 16)
    raise KeyError(symbol)


def file_offset(function: Callable[..., object]) -> tuple[Path, int]:
    """Return the file that contains a C function of this process, and the function's offset in it."""
    address = ctypes.cast(function, ctypes.c_void_p).value  # type: ignore[arg-type]
    assert address is not None
    for mapping in Path("/proc/self/maps").read_text().splitlines():
        span, _, offset, *_, path = mapping.split()
        start, end = (int(text, 16) for text in span.split("-"))
        if start <= address < end:
            return Path(path), int(offset, 16) + address - start
    raise LookupError(f"{address:#x} is not mapped")


def tracefs_kprobe(symbol: str, undo: Undo) -> int:
    """Define a kprobe event in tracefs; return its number."""

    def append(line: str) -> None:
        fd = _opened(f"{TRACEFS}/kprobe_events", os.O_WRONLY | os.O_APPEND, f"kprobe_events {symbol}")
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)

    append(f"p:harness/step {symbol}\n")
    undo.callback(append, "-:harness/step\n")
    return tracepoint_number("harness/step")


def attach(program: int, event: int) -> None:
    """Attach a program to a perf event and enable the event, with two ioctls."""
    fcntl.ioctl(event, _IOC_SET_BPF, program)
    fcntl.ioctl(event, _IOC_ENABLE, 0)


def output_event(undo: Undo) -> int:
    """Open and map the perf event that receives one CPU's events of a perf_event_array; return its fd."""
    attributes = _PerfAttr(type=_TYPE_SOFTWARE, config=_BPF_OUTPUT, sample_type=_SAMPLE_RAW, sample_period=1)
    event = _open(attributes, -1, 0, undo, "BPF output")
    undo.enter_context(mmap.mmap(event, 2 * mmap.PAGESIZE))
    return event
