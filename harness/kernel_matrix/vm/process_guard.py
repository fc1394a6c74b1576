"""A process group that never outlives the process that started it, even when that process is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

from kernel_matrix import arch

# The leader of the group starts the command, and kills the whole group when the other end of its standard input is
# closed, which the kernel does for a killed process too. It starts the command itself, so that the command never runs
# without a guard. PR_SET_PDEATHSIG does not suffice: it reaches a child, but not the child's children, and QEMU is a
# grandchild of virtme-ng.
_GUARD = """
import os, sys, _thread
def watch():
    os.read(0, 1)
    os.killpg(0, 9)
_thread.start_new_thread(watch, ())
nothing = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=nothing)
os._exit(min(abs(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])), 255))
"""
# Runs before that when several guests share the processors. By default (SCHED_OTHER) each wake-up of QEMU's main loop,
# at every tick of its guest, may preempt another guest: 1900 times in each second that an emulated guest computes, and
# each time less of its translated code is left in the caches. A batch task preempts no other task when it wakes up,
# and requests a longer slice, which kernels before 6.12 ignore (857b158dc5e8, "sched/eevdf: Use
# sched_attr::sched_runtime to set request/slice suggestion"). Its children inherit the policy. It needs no privilege;
# where it is refused nevertheless (by seccomp), only time is lost.
_BATCH = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
if libc.syscall({number}, 0, {attributes!r}, 0) and ctypes.get_errno() not in {{errno.EPERM, errno.ENOSYS}}:
    raise OSError(ctypes.get_errno(), "sched_setattr")
"""
#: the kernel permits 0.1 to 100 ms (__setparam_fair()); docs/decisions.md, Emulation, has the reason for this value
_SLICE_NANOSECONDS = 20_000_000
#: limit for writing what is left in the pipe, at most 64 KiB, which takes much less
_SECONDS_TO_DRAIN = 10.0
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(group: int) -> float:
    """Return the CPU seconds of a process group with its ended children (proc(5), fields 14 to 17 of stat)."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        if int(fields[2]) == group:
            total += sum(int(field) for field in fields[11:15])
    return total / _TICKS


def _guard(*, batch: bool) -> str:
    """Return the program of a group's leader."""
    machine = arch.of_host()
    if not batch or machine is None:
        return _GUARD
    # the call sets the nice value, too; a run under nice(1) keeps its own
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    # struct sched_attr (linux/sched/types.h): size, policy, flags, nice, priority, runtime, deadline, period
    attributes = struct.pack("=IIQiIQQQ", 48, os.SCHED_BATCH, 0, nice, 0, _SLICE_NANOSECONDS, 0, 0)
    return _BATCH.format(number=machine.syscalls["sched_setattr"], attributes=attributes) + _GUARD


class GuardedGroup:
    """A command in its own session, which is killed with all its children when this process ends in any way."""

    def __init__(self, command: list[str], *, output: Path, environment: dict[str, str], batch: bool = False) -> None:
        """Start the command; both its output streams are appended to ``output``.

        ``batch``: it computes for long beside other such commands, and throughput matters more than latency.

        The output goes through a pipe, because virtme-ng lets QEMU open its output several times by name, which would
        truncate a file and write from its start each time. The pipe's reader ends when the last writer has.
        """
        with output.open("ab") as sink:
            # its errors go to this process's standard error, so that the user sees a failed write
            self._appender = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=sink, start_new_session=True)
        assert self._appender.stdin is not None
        with self._appender.stdin as pipe:
            self.process = subprocess.Popen(
                [sys.executable, "-S", "-E", "-c", _guard(batch=batch), *command],
                stdin=subprocess.PIPE,
                stdout=pipe,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def ended(self) -> bool:
        """Whether the command itself has ended."""
        return self.process.poll() is not None

    def kill(self) -> None:
        """Kill every process of the group; wait until the group has ended and its output is written."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self._appender.wait(_SECONDS_TO_DRAIN)
        except subprocess.TimeoutExpired:
            self._appender.kill()
            self._appender.wait()
