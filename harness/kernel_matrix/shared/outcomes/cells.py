"""The result of a run of the matrix: one Cell for each kernel and test.

Pure data, shared by host and guest; it uses the standard library only.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Self

#: the "test" of a guest that died outside any test
BOOT = "boot"
#: the "test" of what a guest's kernel logs outside any test
GUEST = "guest"
#: the "test" of a kernel whose image is unavailable
IMAGE = "image"


@dataclass(frozen=True, slots=True)
class Traits:
    """All properties of an outcome, so that a new outcome is one member of `Outcome` and nothing else."""

    #: one character, different for each outcome, readable without colour
    sign: str
    #: rich's style
    colour: str
    #: when a cell has two results (a test failed, and its guest died in the teardown), the higher one is kept; red
    #: cells are shown in descending order, except those without a report, which the others explain
    rank: int
    #: whether the matrix may pass with it; anything else, and a missing cell, is red
    green: bool = False
    #: whether the test did what it is for
    done: bool = False
    #: whether the test was interrupted: its duration means nothing, and the console has the reason
    cut_short: bool = False
    #: whether a guest reported it; a run without such an outcome is an infrastructure failure, not red
    decided: bool = True
    #: JUnit's word: passed, skipped, failure or error
    junit: str = "error"


class Outcome(enum.StrEnum):
    """What a test did on one kernel (a program's verdict, such as XDP_PASS, is something else)."""

    traits: Traits

    def __new__(cls, value: str, traits: Traits = Traits("", "", 0)) -> Self:
        """Create a member that is equal to its name."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.traits = traits
        return member

    PASS = "pass", Traits("✓", "green", 0, green=True, done=True, junit="passed")
    FAIL = "fail", Traits("✗", "bold red", 7, junit="failure")
    ERROR = "error", Traits("E", "bold red", 8)
    SKIP = "skip", Traits("–", "yellow", 2, green=True, junit="skipped")
    #: a pass in which the kernel refused exactly as the test declared
    REFUSED = "refused", Traits("⊘", "green", 1, green=True, done=True, junit="passed")
    XFAIL = "xfail", Traits("x", "yellow", 3, green=True, junit="skipped")
    XPASS = "xpass", Traits("X", "bold red", 5, junit="failure")
    #: a kernel fault (panic, oops that ended the guest) during that test
    CRASH = "crash", Traits("☠", "bold red", 10, cut_short=True)
    #: what only the own loader of a foreign object knows, and nobody declared: neither the kernel's fault nor a pass
    UNDECLARED = "undeclared", Traits("!", "bold yellow", 6, junit="failure")
    #: the guest stopped answering or was killed during that test
    LOST = "lost", Traits("?", "bold red", 9, cut_short=True, decided=False)
    #: the cell was expected, but there was no report
    NOTRUN = "notrun", Traits("·", "bold red", 4, cut_short=True, decided=False)

    @property
    def green(self) -> bool:
        """Whether the matrix may pass with this outcome; anything else, and a missing cell, is red."""
        return self.traits.green

    @property
    def sign(self) -> str:
        """The outcome's character, readable without colour."""
        return self.traits.sign


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One test on one kernel."""

    #: the kernel's name in the manifest, such as ``6.1``
    kernel: str
    #: the node id without the kernel, such as ``tests/test_frames.py::test_arp[native]``
    test: str
    outcome: Outcome
    #: ``uname -r`` of the guest; empty when it did not boot
    release: str = ""
    #: seconds, all phases of the test together
    duration: float = 0.0
    #: why: the failure's text, the skip's reason, the console of a crash; empty for a pass
    detail: str = ""
    #: for a failure, the kernel's log during the test
    log: str = ""
    #: for a failed load, the messages of libbpf and the verifier
    verifier: str = ""
    #: for a refused step that fails the test, its cause and remedy
    diagnosis: str = ""
    #: what the test observed and reports whatever it is: names and values, sorted
    observed: tuple[tuple[str, str], ...] = ()
