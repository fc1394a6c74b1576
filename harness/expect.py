"""From pytest's reports of one test to its outcome. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.cells import Outcome

#: the user property by which a test (or a crash) states its outcome
OUTCOME_PROPERTY = "outcome"


@dataclass(frozen=True, slots=True)
class Phase:
    """What one report says: set-up, call or teardown of one test."""

    when: str
    #: pytest's word: passed, failed or skipped
    result: str
    #: the reason of an xfail mark that took part, None without
    xfail_reason: str | None = None
    #: the outcome stated by the test, None without
    stated: str | None = None
    text: str = ""
    duration: float = 0.0
    #: of a failure, as in `Cell`
    log: str = ""
    verifier: str = ""
    diagnosis: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What came of a test, and why: as in `Cell`."""

    outcome: Outcome
    detail: str = ""
    log: str = ""
    verifier: str = ""
    diagnosis: str = ""


def decide(phases: Iterable[Phase]) -> Decision:
    """Return a test's outcome and why; the first phase that is not a pass decides, a stated outcome refines it."""
    phases = list(phases)
    called = False
    stated: str | None = None
    for phase in phases:
        if phase.result == "failed":
            return Decision(_failed(phase), phase.text, phase.log, phase.verifier, phase.diagnosis)
        if phase.result == "skipped":
            if phase.xfail_reason is not None:
                return Decision(Outcome.XFAIL, phase.xfail_reason)
            return Decision(Outcome.SKIP, phase.text)
        if phase.when == "call":
            called = True
            if phase.xfail_reason is not None:
                return Decision(Outcome.XPASS, phase.xfail_reason)
            stated = phase.stated
    if not called:
        return Decision(Outcome.NOTRUN, "no report of the test itself came")
    return Decision(Outcome.REFUSED if stated == Outcome.REFUSED else Outcome.PASS)


def _failed(phase: Phase) -> Outcome:
    if phase.stated in {Outcome.CRASH, Outcome.LOST}:
        return Outcome(phase.stated)
    if phase.when != "call":
        return Outcome.ERROR
    # pytest's text for a strict xfail that passed
    return Outcome.XPASS if phase.text.startswith("[XPASS(strict)]") else Outcome.FAIL


def split_nodeid(nodeid: str, kernel: str) -> str:
    """Return the test's name on every kernel: the node id without its kernel, the first part of its parameters."""
    for given, without in ((f"[{kernel}]", ""), (f"[{kernel}-", "[")):
        head, found, rest = nodeid.partition(given)
        if found:
            return head + without + rest
    return nodeid


def join_nodeid(test: str, kernel: str) -> str:
    """Return the node id of a test on that kernel: what `split_nodeid` reads."""
    head, found, rest = test.partition("[")
    return f"{head}[{kernel}-{rest}" if found else f"{head}[{kernel}]"


def kernel_of_argument(argument: str, kernels: Iterable[str]) -> str | None:
    """Return the kernel that a command-line node id names (``file.py::test[6.1-x]``), None when it names none."""
    if "::" not in argument or "[" not in argument:
        return None
    parameters = argument.partition("[")[2].rstrip("]")
    named = [kernel for kernel in kernels if parameters == kernel or parameters.startswith(kernel + "-")]
    return max(named, key=len, default=None)
