"""What became of a mutant, and whether that is right. Pure."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from kernel_matrix.shared.outcomes import expect
from kernel_matrix.shared.outcomes.mutants import Result


class Fate(enum.StrEnum):
    """The outcome of a mutant on a kernel."""

    NOT_COMPILING = "not compiling"
    #: its object is the program's own
    SAME_CODE = "same code"
    #: the kernel, or libbpf, did not load it
    REFUSED = "refused"
    #: a test failed
    KILLED = "killed"
    #: it survived, as declared with an argument
    EQUIVALENT = "equivalent"
    #: every test passed
    SURVIVED = "survived"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The fate of a mutant, and what decided it."""

    fate: Fate
    #: the test that killed it, without the kernel; the reason of a refusal or of the compiler; else empty
    by: str = ""
    #: for a killed one, the failure's last line
    why: str = ""


def of_result(result: Result, kernel: str) -> Outcome:
    """Return the outcome of a trial that is valid."""
    if result.refused:
        return Outcome(Fate.REFUSED, result.refused)
    if result.failed:
        test, why = result.failed[0]
        return Outcome(Fate.KILLED, expect.split_nodeid(test, kernel), why)
    return Outcome(Fate.SURVIVED)


def lost(test: str, kernel: str, reason: str) -> Outcome:
    """Return the outcome of a mutant that took its guest with it."""
    during = expect.split_nodeid(test, kernel) if test else "the start"
    return Outcome(Fate.KILLED, f"guest lost in {during}", reason)


def judged(outcome: Outcome, *, equivalent: bool) -> Outcome:
    """Return a survivor's outcome by what is declared."""
    return Outcome(Fate.EQUIVALENT) if equivalent and outcome.fate is Fate.SURVIVED else outcome


@dataclass(frozen=True, slots=True)
class Complaint:
    """Why a run is red."""

    kernel: str
    mutant: str
    #: one line
    text: str


def complaints(
    kernel: str, outcomes: Mapping[str, Outcome], declared: Collection[str], recorded: Mapping[str, Outcome]
) -> list[Complaint]:
    """Return what is wrong with a kernel's outcomes: survivors, and equivalent mutants that were noticed."""
    wrong: list[Complaint] = []
    for name, outcome in outcomes.items():
        before = recorded.get(name)
        if outcome.fate is Fate.SURVIVED:
            was = f" ({before.fate} by {before.by} in the record)" if before and before.by else ""
            wrong.append(Complaint(kernel, name, f"survived{was}"))
        elif name in declared and outcome.fate in {Fate.KILLED, Fate.REFUSED}:
            wrong.append(Complaint(kernel, name, f"declared equivalent, but {outcome.fate} by {outcome.by}"))
    return wrong
