"""How a guest came up and how it ended: written by its relay, read by the controller."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class End(enum.StrEnum):
    """Why a guest is no longer there."""

    #: the host had no more work for it
    RELEASED = "released"
    #: its kernel panicked
    PANIC = "panic"
    #: QEMU ended, and the console shows no panic (killed from outside, or the guest switched itself off)
    EXITED = "exited"
    #: no word for longer than the limit
    SILENT = "silent"
    #: it never said its first word
    NO_BOOT = "no-boot"


#: what the names of the files end with that hold an Ending and, beside it, a Started
ENDING, STARTED = ".ending.json", ".started.json"


@dataclass(frozen=True, slots=True)
class Started:
    """How a guest came up."""

    kernel: str
    #: "cold" or "restored"
    how: str
    #: QEMU's start, in seconds of the host's CLOCK_MONOTONIC
    began: float
    #: from then to the agent's answer
    seconds: float
    #: the process group of virtme-ng and QEMU
    group: int
    #: what the user should know, empty when all went as it does
    note: str = ""
    #: with the sockets at which it is entered and debugged
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Ending:
    """One guest's life, from its relay's point of view."""

    kernel: str
    end: End
    #: one line: what happened
    reason: str
    #: ``uname -r``; empty when the guest never said hello
    release: str = ""
    #: from QEMU's start to the first word
    boot_seconds: float = 0.0
    #: how many times slower than the reference the guest's Python is, at least 1
    slowness: float = 1.0
    #: the guest's part of the console
    console: str = ""
    #: of a silent guest: what it was doing (kernel_matrix.relay.hang)
    doing: str = ""

    def describe(self) -> str:
        """Return the reason with the release and the console's path left to the caller."""
        return f"kernel {self.kernel} ({self.release or 'did not boot'}): {self.reason}"
