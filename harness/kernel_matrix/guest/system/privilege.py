"""Run a function in a child process with an exact uid and exact capability sets.

The child is a fork: its changes do not affect the parent, and its privileges are real (the kernel's own sets, not a
mock). Capability numbers are the kernel's UAPI (linux/capability.h), which never changes; the capset layout is
version 3 of the same header.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import os
import pickle
import select
import signal
import struct
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NoReturn, ParamSpec, TypeVar, cast

from kernel_matrix.guest.system.deadline import declared

P = ParamSpec("P")
T = TypeVar("T")

#: an unprivileged user that owns nothing in the guest (Debian's ``nobody``)
NOBODY = 65534


class Cap(enum.IntEnum):
    """The capabilities that the kernel checks in BPF's paths, by their number in linux/capability.h."""

    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    NET_ADMIN = 12
    IPC_LOCK = 14
    SYS_ADMIN = 21
    SYS_RESOURCE = 24
    SYSLOG = 34
    PERFMON = 38
    BPF = 39


class ChildError(Exception):
    """The child ended without a result: killed by a signal, or after its deadline.

    `status` is its exit code, negative for a signal; None for a deadline.
    """

    def __init__(self, text: str, status: int | None) -> None:
        super().__init__(text)
        self.status = status


# linux/prctl.h, linux/securebits.h, linux/capability.h
_PR_SET_SECUREBITS = 28
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
#: SECBIT_NOROOT and SECBIT_NO_SETUID_FIXUP, both locked: uid 0 grants no capability, not even at exec, and
#: changing the uid removes none
_SECUREBITS = 0b1111
_CAPABILITY_VERSION_3 = 0x20080522
#: version, and pid 0 for this process
_CAPSET_HEADER = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)

_libc = ctypes.CDLL(None, use_errno=True)


def without_capabilities(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run the function as uid 0 without any capability."""
    return run_as(lambda: function(*args, **kwargs), caps=())


def with_only(caps: Collection[Cap], function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run the function as uid 0 with exactly these capabilities: effective, permitted and bounding."""
    return run_as(lambda: function(*args, **kwargs), caps=caps)


def run_as(
    function: Callable[[], T], *, caps: Collection[Cap], uid: int = 0, seconds: float = 60.0, passed_on: bool = False
) -> T:
    """Run the function in a forked child with this uid (and gid) and exactly these capabilities.

    With ``passed_on``, programs that the child executes have them, too: they are ambient (capabilities(7)).

    The child inherits every open fd. Its result, or its exception, is pickled for the parent, so fds that it opens
    are lost. Raises ChildError when it is killed or has no result within `seconds`.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _answer(partial(_become, uid, caps, passed_on=passed_on), function, writing)
    os.close(writing)
    try:
        with declared():
            answer = _read_all(reading, time.monotonic() + seconds)
    finally:
        os.close(reading)
        # it has sent its result and is ending, or it hangs: in both cases it has nothing left to do
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    if answer is None:
        raise ChildError(f"the child gave no answer within {seconds:g} s", None)
    if not answer:
        code = os.waitstatus_to_exitcode(status)
        raise ChildError(f"the child ended without an answer: exit code {code}", code)
    worked, value = pickle.loads(answer)  # noqa: S301  our own fork wrote it
    if worked:
        return cast("T", value)
    raise value


def _read_all(fd: int, deadline: float) -> bytes | None:
    """Read to the end of file; None when the deadline passes first."""
    parts = bytearray()
    while (left := deadline - time.monotonic()) > 0:
        if select.select([fd], [], [], left)[0]:
            part = os.read(fd, 65536)
            if not part:
                return bytes(parts)
            parts += part
    return None


def _answer(become: Callable[[], None], function: Callable[[], object], writing: int) -> NoReturn:
    """Run in the child: change privileges, call the function, write the pickled result, end without clean-up."""
    try:
        become()
        answer = pickle.dumps((True, function()))
    except BaseException as error:  # noqa: BLE001  whatever it is, the parent raises it
        answer = _pickled(error)
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(answer)
    os._exit(0)


def _pickled(error: BaseException) -> bytes:
    """Pickle an exception so that the parent can raise it, or else an error with its text."""
    try:
        answer = pickle.dumps((False, error))
        pickle.loads(answer)  # noqa: S301  our own fork wrote it
    except Exception:  # noqa: BLE001  an exception may fail to pickle in any way
        return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")))
    return answer


def _become(uid: int, caps: Collection[Cap], *, passed_on: bool = False) -> None:
    """Change this process irreversibly to the uid and to exactly these capabilities."""
    for number in range(64):
        if number not in caps and _in_bounding_set(number):
            _prctl(_PR_CAPBSET_DROP, number)
    _prctl(_PR_SET_SECUREBITS, _SECUREBITS)
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    inheritable = caps if passed_on else ()
    set_capabilities(capability_sets(effective=caps, permitted=caps, inheritable=inheritable))
    for cap in inheritable:
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, cap)


def capability_sets(
    *, effective: Collection[Cap], permitted: Collection[Cap], inheritable: Collection[Cap] = ()
) -> bytes:
    """Return the argument of capset(2) for these sets."""
    has, may, hands = (sum(1 << cap for cap in caps) for caps in (effective, permitted, inheritable))
    # two blocks: capabilities 0 to 31, 32 to 63
    low = (number & 0xFFFFFFFF for number in (has, may, hands))
    high = (number >> 32 for number in (has, may, hands))
    return struct.pack("=6I", *low, *high)


def set_capabilities(sets: bytes) -> None:
    """Give this process exactly these sets; a capability that leaves the permitted set is lost. Raises OSError."""
    if _libc.capset(_CAPSET_HEADER, sets):
        raise OSError(ctypes.get_errno(), "capset")


@contextmanager
def only_effective(caps: Collection[Cap]) -> Iterator[None]:
    """Let this thread have exactly these capabilities for the block; afterwards it has again what it had.

    It keeps its permitted set, from which it takes the others back, and no program that it executes matters here. For
    what the kernel asks in one call this is as good as a process without them, and takes no fork.
    """
    sets = ctypes.create_string_buffer(24)
    if _libc.capget(_CAPSET_HEADER, sets):
        raise OSError(ctypes.get_errno(), "capget")
    before = struct.unpack("=6I", sets.raw)
    bits = sum(1 << cap for cap in caps)
    set_capabilities(struct.pack("=6I", bits & 0xFFFFFFFF, *before[1:3], bits >> 32, *before[4:6]))
    try:
        yield
    finally:
        set_capabilities(sets.raw)


def _in_bounding_set(number: int) -> bool:
    """Whether a capability is in the bounding set; False for one that this kernel lacks (EINVAL, prctl(2))."""
    state = int(_libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0))
    if state < 0 and ctypes.get_errno() != errno.EINVAL:
        raise OSError(ctypes.get_errno(), f"PR_CAPBSET_READ of {number}")
    return state == 1


def _prctl(option: int, value: int, argument: int = 0) -> None:
    if _libc.prctl(option, value, argument, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value}, {argument})")
