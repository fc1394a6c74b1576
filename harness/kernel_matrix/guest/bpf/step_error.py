"""What a step that failed says: stage, errno, what libbpf said, and who asked."""

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

from kernel_matrix.guest.bpf.library import strerror
from kernel_matrix.guest.system.privilege import Cap

#: the steps that have a refusal of their own
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

# opened once: dlopen() takes as long as all the rest of a StepError, and the capability table has thousands
_libc = ctypes.CDLL(None, use_errno=True)
#: PROC_USER_INIT_INO of linux/proc_ns.h: the number of the initial user namespace on every kernel
_INITIAL = 0xEFFFFFFD
#: 95 has two names, of which the kernel uses this one; 524 is internal to the kernel and shown all the same
_ERRNO_NAMES = {errno.EOPNOTSUPP: "EOPNOTSUPP", 524: "ENOTSUPP"}


@dataclass(frozen=True, slots=True)
class Asker:
    """Who made a step: what of this process decides whether it may."""

    uid: int
    #: effective capabilities, a bit each by number
    effective: int
    #: RLIMIT_MEMLOCK in bytes, None: without limit
    memlock: int | None
    #: whether that was in another user namespace than the initial one; None: not looked up yet
    in_user_namespace: bool | None = None

    @classmethod
    def this_process(cls) -> Asker:
        """Ask the kernel about this process (capget(2), version 3)."""
        data = (c_uint32 * 6)()
        if _libc.capget(struct.pack("=Ii", 0x20080522, 0), data):
            raise OSError(ctypes.get_errno(), "capget")
        limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
        return cls(os.geteuid(), data[0] | data[3] << 32, None if limit == resource.RLIM_INFINITY else limit)

    @property
    def has_bpf(self) -> bool:
        """Whether it has CAP_BPF, or CAP_SYS_ADMIN, which stands for it, where that counts."""
        return not self.in_user_namespace and any(self.effective >> cap & 1 for cap in (Cap.BPF, Cap.SYS_ADMIN))

    def settled(self) -> Asker:
        """Look up the user namespace, in the process that asked: nobody gets back into the initial one.

        Not before somebody wants to know: an emulated guest takes as long for it as for all else of a refusal.
        """
        if self.in_user_namespace is not None:
            return self
        return replace(self, in_user_namespace=Path("/proc/self/ns/user").stat().st_ino != _INITIAL)


class StepError(OSError):
    """A step that failed: `errno` is the kernel's (or libbpf's own, from 4000 on), `stage` says which step."""

    def __init__(
        self, number: int, stage: Stage, what: str, log: str = "", kind: str = "", *, token: bool = False
    ) -> None:
        super().__init__(number, f"{what}: {strerror(number)}")
        self.stage: Stage = stage
        #: what was to be done, such as ``kprobe sys_execve``
        self.what = what
        #: what libbpf said while it was done, the verifier's log included; empty for a step that has none
        self.log = log
        #: libbpf's name of the program's type, empty where none takes part or it is not known
        self.kind = kind
        #: whether a BPF token was handed along
        self.token = token
        #: who was refused; it comes back from a child with other privileges
        self.asker = Asker.this_process()

    def __reduce__(self) -> tuple[type[StepError], tuple[int, Stage, str, str, str], dict[str, object]]:
        assert self.errno is not None
        return (
            StepError,
            (self.errno, self.stage, self.what, self.log, self.kind),
            {
                "asker": self.asker.settled(),
                "token": self.token,
            },
        )


def errno_name(number: int | None) -> str:
    """Name an errno for a message: 22 is ``EINVAL``."""
    return _ERRNO_NAMES.get(number or 0) or errno.errorcode.get(number or 0, f"errno {number}")
