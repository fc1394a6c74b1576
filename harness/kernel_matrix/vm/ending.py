"""How a guest started and how it ended: written by its relay, read by the controller."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class End(enum.StrEnum):
    """Why a guest ended."""

    #: the host had no more work for it
    RELEASED = "released"
    #: its kernel panicked
    PANIC = "panic"
    #: QEMU ended, and the console has no panic (killed from outside, or the guest powered off)
    EXITED = "exited"
    #: the guest sent nothing for longer than the limit
    SILENT = "silent"
    #: the agent never became ready
    NO_BOOT = "no-boot"


#: suffixes of the files with an Ending and, beside it, a Started
ENDING, STARTED = ".ending.json", ".started.json"


@dataclass(frozen=True, slots=True)
class Started:
    """How a guest started."""

    kernel: str
    #: "cold" or "restored"
    how: str
    #: QEMU's start, in seconds of the host's CLOCK_MONOTONIC
    began: float
    #: from QEMU's start to the agent's answer
    seconds: float
    #: the process group of virtme-ng and QEMU
    group: int
    #: a remark for the user; empty when nothing unusual happened
    note: str = ""
    #: holds the sockets for entering and debugging the guest
    folder: str = ""
    #: ``uname -r``, as the guest reported it
    release: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a guest ended, as its relay saw it."""

    kernel: str
    end: End
    #: one line: what happened
    reason: str
    #: ``uname -r``; empty when the agent never became ready
    release: str = ""
    #: from QEMU's start to the agent's greeting
    boot_seconds: float = 0.0
    #: how much slower than the reference the guest's Python is, a factor of at least 1
    slowness: float = 1.0
    #: the guest's part of the console
    console: str = ""
    #: for a silent guest, what it was doing (kernel_matrix.relay.hang)
    doing: str = ""

    def describe(self) -> str:
        """Return one line with kernel, release and reason."""
        return f"kernel {self.kernel} ({self.release or 'did not boot'}): {self.reason}"
