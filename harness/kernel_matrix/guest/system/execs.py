"""Scripted exec calls, each in its own child, through every entry of the kernel."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import struct
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.arch import CURRENT
from kernel_matrix.guest.system.deadline import wait_until

#: linux/fcntl.h
AT_EMPTY_PATH = 0x1000
#: asm/mman.h: below 2 GB, where 32-bit arguments reach
_MAP_32BIT = 0x40

#: whether a 64-bit program of this architecture can enter the kernel as a 32-bit one does
HAS_32_BIT_ENTRY = CURRENT.call32 is not None

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Child:
    """A child that has ended."""

    pid: int
    #: its exit status, or the negative number of the signal that ended it
    status: int


def forked(action: Callable[[], object]) -> int:
    """Fork; return the child's pid. It calls the action, and exits with 0, its OSError's errno, or 254."""
    with warnings.catch_warnings():
        # execnet has a thread of its own, whose locks the child does not take
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 0
        try:
            action()
        except OSError as error:
            status = error.errno or 255
        except BaseException:  # noqa: BLE001 - the child must end here whatever happens
            traceback.print_exc()
            status = 254
        finally:
            os._exit(status)
    return pid


def in_child(action: Callable[[], object], *, uid: int = 0, gid: int = 0) -> Child:
    """Fork, change to that user, call the action; the child exits with the errno of its OSError.

    An exec that works never returns: then the status is the new program's.
    """

    def act() -> None:
        if uid or gid:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        action()

    pid = forked(act)
    try:
        ended = wait_until(lambda: _reaped(pid), f"the end of child {pid}", seconds=20)
    except TimeoutError:
        # it would keep its cgroup and its namespace
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    return Child(pid, os.waitstatus_to_exitcode(ended[1]))


def _reaped(pid: int) -> tuple[int, int] | None:
    result = os.waitpid(pid, os.WNOHANG)
    return result if result[0] else None


def execve(address: int) -> None:
    """Call execve with a filename at that address, whatever the memory contains; raises OSError."""
    _checked(_libc.syscall(CURRENT.syscalls["execve"], ctypes.c_void_p(address), None, None))


def execveat(directory: int, path: str, flags: int = 0) -> None:
    """Make the system call directly, not through the C library's function; raises OSError."""
    argv = (ctypes.c_char_p * 2)(path.encode() or b"x", None)
    _checked(_libc.syscall(CURRENT.syscalls["execveat"], directory, ctypes.c_char_p(path.encode()), argv, None, flags))


def execve32(path: Path) -> None:
    """Call execve through the 32-bit entry, which a 64-bit program may use too; raises OSError."""
    low = _Low()
    filename = low.put(os.fsencode(path) + b"\0")
    argv = low.put(struct.pack("<II", filename, 0))
    low.call("execve", filename, argv)


def execveat32(directory: int, path: str) -> None:
    """Call execveat through the 32-bit entry; raises OSError."""
    low = _Low()
    filename = low.put(path.encode() + b"\0")
    argv = low.put(struct.pack("<II", filename, 0))
    low.call("execveat", directory, filename, argv)


def close32(fd: int) -> None:
    """Close a descriptor through the 32-bit entry; raises OSError."""
    _Low().call("close", fd)


def getpid32() -> int:
    """Call getpid through the 32-bit entry; a kernel without it kills this process by a signal. Raises OSError."""
    return _Low().call("getpid")


class _Low:
    """One page for data and one for code, below 4 GB."""

    def __init__(self) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_32BIT
        self._page = mmap.mmap(-1, 2 * mmap.PAGESIZE, flags, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self._used = mmap.PAGESIZE

    def put(self, data: bytes) -> int:
        """Store data; return its address."""
        address = self._start + self._used
        self._page[self._used : self._used + len(data)] = data
        self._used += (len(data) + 7) // 8 * 8
        return address

    def call(self, name: str, *arguments: int) -> int:
        """Enter the kernel as a 32-bit program does; raises OSError, with ENOSYS where a 64-bit program cannot."""
        if CURRENT.call32 is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        code = CURRENT.call32(CURRENT.syscalls32[name], *arguments)
        self._page[: len(code)] = code
        result: int = ctypes.CFUNCTYPE(ctypes.c_long)(self._start)()
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
