"""What a run of the matrix finds: one Cell for each kernel and test.

Pure data, shared by host and guest: the standard library only.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

#: the "test" of a guest that died outside every test
BOOT = "boot"
#: the "test" of what a guest's kernel says outside every test
GUEST = "guest"
#: the "test" of a kernel whose image is not to be had
IMAGE = "image"


class Outcome(enum.StrEnum):
    """What a test did on one kernel (a program's verdict, such as XDP_PASS, is something else)."""

    PASS = "pass"
    FAIL = "fail"
    ERROR = "error"
    SKIP = "skip"
    #: a pass in which the kernel refused exactly as the test declared
    REFUSED = "refused"
    XFAIL = "xfail"
    XPASS = "xpass"
    #: a kernel fault (panic, oops that ended the guest) during that test
    CRASH = "crash"
    #: the guest stopped answering or was killed during that test
    LOST = "lost"
    #: the cell was expected and no report came
    NOTRUN = "notrun"

    @property
    def green(self) -> bool:
        """Whether the matrix may pass with this outcome; anything else, and a missing cell, is red."""
        return self in _GREEN


_GREEN = frozenset({Outcome.PASS, Outcome.REFUSED, Outcome.SKIP, Outcome.XFAIL})


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One test on one kernel."""

    #: the kernel's name in the manifest, such as ``6.1``
    kernel: str
    #: the node id without the kernel, such as ``suites/xdp/test_frames.py::test_arp[native]``
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
