"""What a run of the matrix finds: one Cell for each kernel and test.

Pure data, shared by host and guest: the standard library only.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Self

#: the "test" of a guest that died outside every test
BOOT = "boot"
#: the "test" of what a guest's kernel says outside every test
GUEST = "guest"
#: the "test" of a kernel whose image is not to be had
IMAGE = "image"


@dataclass(frozen=True, slots=True)
class Traits:
    """What the rest of the engine needs to know of an outcome: another one is a member of `Outcome`, and no more."""

    #: readable without colour, and each outcome its own
    sign: str
    #: rich's style
    colour: str
    #: when results of one cell meet (a test that failed, whose guest died in its teardown), the higher one stays; of
    #: red cells the higher one is shown first, but for what has no report, which the others explain
    rank: int
    #: whether the matrix may pass with it; anything else, and a missing cell, is red
    green: bool = False
    #: whether the test did what it is there for
    done: bool = False
    #: whether the test may have taken any time and the console says why
    cut_short: bool = False
    #: whether a guest has decided it: a run in which none has is broken, not red
    decided: bool = True
    #: JUnit's word: passed, skipped, failure or error
    junit: str = "error"


class Outcome(enum.StrEnum):
    """What a test did on one kernel (a program's verdict, such as XDP_PASS, is something else)."""

    traits: Traits

    def __new__(cls, value: str, traits: Traits = Traits("", "", 0)) -> Self:
        """Make a member that is equal to its name."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.traits = traits
        return member

    PASS = "pass", Traits("✓", "green", 0, green=True, done=True, junit="passed")
    FAIL = "fail", Traits("✗", "bold red", 6, junit="failure")
    ERROR = "error", Traits("E", "bold red", 7)
    SKIP = "skip", Traits("–", "yellow", 2, green=True, junit="skipped")
    #: a pass in which the kernel refused exactly as the test declared
    REFUSED = "refused", Traits("⊘", "green", 1, green=True, done=True, junit="passed")
    XFAIL = "xfail", Traits("x", "yellow", 3, green=True, junit="skipped")
    XPASS = "xpass", Traits("X", "bold red", 5, junit="failure")
    #: a kernel fault (panic, oops that ended the guest) during that test
    CRASH = "crash", Traits("☠", "bold red", 9, cut_short=True)
    #: the guest stopped answering or was killed during that test
    LOST = "lost", Traits("?", "bold red", 8, cut_short=True, decided=False)
    #: the cell was expected and no report came
    NOTRUN = "notrun", Traits("·", "bold red", 4, cut_short=True, decided=False)

    @property
    def green(self) -> bool:
        """Whether the matrix may pass with this outcome; anything else, and a missing cell, is red."""
        return self.traits.green

    @property
    def sign(self) -> str:
        """Its sign, readable without colour."""
        return self.traits.sign


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One test on one kernel."""

    #: the kernel's name in the manifest, such as ``6.1``
    kernel: str
    #: the node id without the kernel, such as ``tests/test_frames.py::test_arp[native]``
    test: str
    outcome: Outcome
    #: ``uname -r`` of the guest; empty when it never came up
    release: str = ""
    #: seconds, all phases of the test together
    duration: float = 0.0
    #: why: the failure's text, the skip's reason, the console of a crash; empty for a pass
    detail: str = ""
    #: of a failure: what the kernel logged during the test
    log: str = ""
    #: of a failed load: what libbpf and the verifier said
    verifier: str = ""
    #: of a refused step that fails the test: one cause, one remedy
    diagnosis: str = ""
