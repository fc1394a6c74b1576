"""The differences between two result sets. Pure data."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.StrEnum):
    """What a difference means."""

    #: was green, is red (lost and notrun too)
    REGRESSION = "regression"
    #: ran before, is skipped now
    SKIPPED = "now skipped"
    #: another green outcome than expected, such as a pass that became an expected failure
    CHANGED = "changed"
    #: a test has observed something else
    OBSERVED = "observed otherwise"
    #: was expected in this run, but no longer exists
    GONE = "gone"
    #: a program's cost has grown by more than the threshold of the manifest
    COSTLIER = "cost grew"
    #: the kernel's patch version differs from that of the baseline
    DRIFTED = "kernel drifted"
    #: was red, skipped or an expected failure, runs and is green now
    FIXED = "fixed"
    #: is in no baseline
    NEW = "new"
    #: a program's cost has shrunk by more than the threshold
    CHEAPER = "cost shrank"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference."""

    kind: Kind
    kernel: str
    #: a test, a program, or empty for the kernel itself
    what: str
    before: str
    after: str
    #: a remark for the reader, such as that the kernel differs from that of the baseline
    note: str = ""
    #: whether it makes the run red
    gates: bool = False

    def __str__(self) -> str:
        where = f"{self.kernel} {self.what}".strip()
        note = f" ({self.note})" if self.note else ""
        return f"{self.kind}: {where}: {self.before or '-'} -> {self.after or '-'}{note}"
