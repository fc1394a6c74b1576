"""Derive a test's outcome from pytest's reports, and convert between node ids and tests. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from kernel_matrix.shared import hints
from kernel_matrix.shared.outcomes.cells import Outcome
from kernel_matrix.shared.outcomes.features import plain_kernel

#: the user property by which a test (or a crash) states its outcome
OUTCOME_PROPERTY = "outcome"
_IN_A_FILE = re.compile(r"[^\s:]+\.(py|o|toml)(::|$)|[^\s:]+::\w+::(load|attach|capabilities|cost)$")
#: characters that are special to a shell between double quotes
_EXPANDED = frozenset('"$`\\!')


@dataclass(frozen=True, slots=True)
class Phase:
    """One report of pytest: set-up, call or teardown of one test."""

    when: str
    #: pytest's outcome: passed, failed or skipped
    result: str
    #: the reason of the xfail mark that applied; None: there was none
    xfail_reason: str | None = None
    #: the outcome that the test itself states; None: it states none
    stated: str | None = None
    text: str = ""
    duration: float = 0.0
    #: for a failure, as in `Cell`
    log: str = ""
    verifier: str = ""
    diagnosis: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """A test's outcome and its reason, as in `Cell`."""

    outcome: Outcome
    detail: str = ""
    log: str = ""
    verifier: str = ""
    diagnosis: str = ""


def decide(phases: Iterable[Phase]) -> Decision:
    """Return a test's outcome and its reason.

    The first failed phase decides: a skip or an expected failure does not excuse a failed teardown. Without a failure,
    the first phase that did not pass decides; a stated outcome refines it.
    """
    phases = list(phases)
    called = False
    stated: str | None = None
    for phase in phases:
        if phase.result == "failed":
            return Decision(_failed(phase), phase.text, phase.log, phase.verifier, phase.diagnosis)
    for phase in phases:
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
    if phase.stated in {Outcome.CRASH, Outcome.LOST, Outcome.UNDECLARED}:
        return Outcome(phase.stated)
    if phase.when != "call":
        return Outcome.ERROR
    # pytest's text for a strict xfail that passed
    return Outcome.XPASS if phase.text.startswith("[XPASS(strict)]") else Outcome.FAIL


def split_nodeid(nodeid: str, kernel: str) -> str:
    """Return a test's name on every kernel: the node id without the kernel, the first of its parameters."""
    head, _, parameters = nodeid.partition("[")
    for prefix, replacement in ((f"{kernel}]", ""), (f"{kernel}-", "[")):
        if parameters.startswith(prefix):
            return head + replacement + parameters.removeprefix(prefix)
    return nodeid


def loader_of(test: str, loaders: Collection[str]) -> str:
    """Return the loader of a test by its name without the kernel; empty for a test that loads nothing."""
    first = test.partition("::")[2].partition("[")[2].removesuffix("]")
    named = [loader for loader in loaders if first == loader or first.startswith(f"{loader}-")]
    return max(named, key=len, default="")


def without_options(arguments: Iterable[str], names: Collection[str], flags: Collection[str] = ()) -> tuple[str, ...]:
    """Remove options (``--name value`` or ``--name=value``) and flags without a value from a command line."""
    left: list[str] = []
    words = iter(arguments)
    for word in words:
        if word in names:
            next(words, None)
        elif word.partition("=")[0] not in names and word not in flags:
            left.append(word)
    return tuple(left)


def join_nodeid(test: str, kernel: str) -> str:
    """Return the node id of a test on a kernel: the inverse of `split_nodeid`; a file is not a test and stays."""
    if "::" not in test:
        return test
    head, bracket, parameters = test.partition("[")
    return f"{head}[{kernel}-{parameters}" if bracket else f"{head}[{kernel}]"


def rerun(test: str, kernel: str) -> str:
    """Return the shell command that runs only this cell again; empty when the cell is not a test."""
    if not _IN_A_FILE.match(test):  # a user's command, or the end of a guest outside any test
        return ""
    nodeid = join_nodeid(test, kernel)
    quoted = f'"{nodeid}"' if not _EXPANDED & set(nodeid) else shlex.quote(nodeid)
    only = "" if "::" in test else f"--kernel {shlex.quote(plain_kernel(kernel))} "
    return hints.command("matrix", f"{only}{quoted}")


def kernel_of_argument(argument: str, kernels: Iterable[str]) -> str | None:
    """Return the kernel that a command-line node id names (``file.py::test[6.1-x]``), None when it names none."""
    if "::" not in argument or "[" not in argument:
        return None
    parameters = argument.partition("[")[2].rstrip("]")
    named = [kernel for kernel in kernels if parameters == kernel or parameters.startswith(kernel + "-")]
    return max(named, key=len, default=None)
