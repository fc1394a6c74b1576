"""Measure programs on the running kernel: the verifier's statistics, their sizes, runs that the kernel has skipped."""

from __future__ import annotations

import ctypes
import functools
from ctypes import c_uint32
from pathlib import Path

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.calls.instructions import leave, mov
from kernel_matrix.guest.bpf.calls.verifier import STATISTICS, Log, verified
from kernel_matrix.guest.bpf.library import libbpf
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.shared.bpf.costs import Cost, Statistics, statistics

#: bytes for the statistics, which are a few lines for a program
_LOG_BYTES = 1 << 16
#: how often the reference is verified; the shortest time counts
_TAKES = 5
#: instructions of the reference, without a branch
REFERENCE = 4096


def keep_statistics(name: str, pointer: int) -> ctypes.Array[ctypes.c_char]:
    """Return the buffer for a program's statistics, which libbpf fills when it loads the program."""
    log = ctypes.create_string_buffer(_LOG_BYTES)
    steps.checked(libbpf().bpf_program__set_log_level(pointer, STATISTICS), "open", name)
    steps.checked(libbpf().bpf_program__set_log_buf(pointer, log, _LOG_BYTES), "open", name)
    return log


@functools.cache
def _unit() -> float:
    """Return the seconds that the reference takes on this machine."""
    return min(reference().seconds for _ in range(_TAKES))


def cost(fd: int, log: str) -> Cost:
    """Return what a loaded program costs; raises ValueError without statistics."""
    return _cost(fd, statistics(log), _unit())


def of_object(path: Path) -> dict[str, Cost]:
    """Load an object's programs and return what each costs; raises StepError, ValueError without statistics."""
    unit = min(reference().seconds for _ in range(_TAKES))
    logs = {}

    def set_log(name: str, pointer: int) -> None:
        logs[name] = keep_statistics(name, pointer)

    with steps.loaded(path, prepare=set_log) as obj:
        return {
            name: _cost(program.fd, statistics(logs[name].value.decode()), unit)
            for name, program in obj.programs.items()
        }


def reference() -> Statistics:
    """Verify the program that other programs' times are divided by: `REFERENCE` instructions without a branch."""
    code = mov(0, 0) * (REFERENCE - 1) + leave()
    with verified("socket_filter", code, log=Log(_LOG_BYTES, STATISTICS)) as program:
        return statistics(program.log)


def sizes(fd: int) -> tuple[int, int]:
    """Return a program's size in bytes as translated by the kernel, and as machine code."""
    info = _information(fd, 24)
    # type, id, tag of eight bytes, jited_prog_len, xlated_prog_len
    return int.from_bytes(info[20:24], "little"), int.from_bytes(info[16:20], "little")


def runs_skipped(fd: int) -> int:
    """Return how often the kernel has not run a program where it should (recursion_misses); 0 before 5.12.

    Where another runs on the same processor (kernel/trace/bpf_trace.c, trace_call_bpf(); counted since 6.7,
    dd8657894c11, "bpf: Count missed stats in trace_call_bpf"); since 7.2, of the tracepoints of system calls,
    where the same program is inside, or was preempted (57918341dd19, "bpf: Add sleepable support for classic tracepoint
    programs").
    """
    return int.from_bytes(_information(fd, 216)[208:], "little")


def _information(fd: int, size: int) -> bytes:
    """Return the first bytes of a program's struct bpf_prog_info (linux/bpf.h), 0 where the kernel writes less."""
    info, length = ctypes.create_string_buffer(size), c_uint32(size)
    result = libbpf().bpf_obj_get_info_by_fd(fd, info, ctypes.byref(length))
    if result < 0:
        raise StepError(-result, "lookup", "program")
    return info.raw


def _cost(fd: int, stats: Statistics, unit: float) -> Cost:
    translated, jited = sizes(fd)
    return Cost(
        stats.instructions,
        stats.states,
        stats.peak_states,
        stats.stack,
        translated,
        jited,
        round(stats.seconds / unit, 2),
    )
