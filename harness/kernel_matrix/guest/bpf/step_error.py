"""The error of a failed step: stage, errno, libbpf's messages, and the credentials of the process."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
from ctypes import c_uint32
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kernel_matrix.diagnose.situation import MapFacts
from kernel_matrix.guest.bpf.library import strerror
from kernel_matrix.guest.system.privilege import Cap
from kernel_matrix.shared.errors import ERRNO_NAMES

#: the steps that can be refused separately
Stage = Literal[
    "open",
    "token",
    "map_create",
    "load",
    "attach",
    "detach",
    "query",
    "lookup",
    "pin",
    "update",
    "read",
    "test_run",
    "sysctl",
]

# opened once: dlopen() takes as long as the rest of a StepError, and the capability table creates thousands
_libc = ctypes.CDLL(None, use_errno=True)
#: the arguments of capget(2), version 3: for this process, and what it writes
_CAPGET_HEADER = struct.pack("=Ii", 0x20080522, 0)
_CapgetData = c_uint32 * 6
#: PROC_USER_INIT_INO of linux/proc_ns.h: the number of the initial user namespace on every kernel
_INITIAL = 0xEFFFFFFD


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials of the process that made a step: they decide whether the kernel permits it."""

    uid: int
    #: effective capabilities, a bit each by number
    effective: int
    #: RLIMIT_MEMLOCK in bytes, None: without limit
    memlock: int | None
    #: whether it is in a user namespace other than the initial one; None: not looked up yet
    in_user_namespace: bool | None = None

    @classmethod
    def this_process(cls) -> Credentials:
        """Read those of this process."""
        data = _CapgetData()
        if _libc.capget(_CAPGET_HEADER, data):
            raise OSError(ctypes.get_errno(), "capget")
        limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
        return cls(os.geteuid(), data[0] | data[3] << 32, None if limit == resource.RLIM_INFINITY else limit)

    @property
    def has_bpf(self) -> bool:
        """Whether it has CAP_BPF, or CAP_SYS_ADMIN, which implies it, in the initial user namespace."""
        return not self.in_user_namespace and any(self.effective >> cap & 1 for cap in (Cap.BPF, Cap.SYS_ADMIN))

    def resolved(self) -> Credentials:
        """Look up the user namespace; call this in the process that made the step.

        A process never returns to the initial namespace. The lookup is done only when its result is needed: under
        emulation it takes as long as the rest of a StepError.
        """
        if self.in_user_namespace is not None:
            return self
        return replace(self, in_user_namespace=Path("/proc/self/ns/user").stat().st_ino != _INITIAL)


class StepError(OSError):
    """A step that failed: `errno` is the kernel's (or libbpf's own, from 4000 on), `stage` says which step."""

    def __init__(
        self, number: int, stage: Stage, what: str, log: str = "", kind: str = "", *, token: bool = False
    ) -> None:
        # 0: a loader refused without asking the kernel, and `what` says why
        super().__init__(number, f"{what}: {strerror(number)}" if number else what)
        self.stage: Stage = stage
        #: the object of the step, such as ``kprobe sys_execve``
        self.what = what
        #: libbpf's messages during the step, with the verifier's log; empty for a step without messages
        self.log = log
        #: libbpf's name of the program's type; empty when no program takes part or its type is unknown
        self.kind = kind
        #: whether a BPF token was passed
        self.token = token
        #: the map that was refused, where the step knows it
        self.map: MapFacts | None = None
        #: the section and attach type (libbpf's name) of the program, where the step knows it; and whether it was this
        #: program that was refused
        self.section = ""
        self.attach_type = ""
        self.blamed = False
        #: those of the refused process, which may be a child with other privileges
        self.credentials = Credentials.this_process()

    def __reduce__(self) -> tuple[type[StepError], tuple[int, Stage, str, str, str], dict[str, object]]:
        assert self.errno is not None
        return (
            StepError,
            (self.errno, self.stage, self.what, self.log, self.kind),
            {
                "credentials": self.credentials.resolved(),
                "token": self.token,
                "map": self.map,
                "section": self.section,
                "attach_type": self.attach_type,
                "blamed": self.blamed,
            },
        )


def errno_name(number: int | None) -> str:
    """Return the name of an errno for a message: 22 is ``EINVAL``."""
    return ERRNO_NAMES.get(number or 0) or errno.errorcode.get(number or 0, f"errno {number}")
