"""Load and attach the programs of an object one at a time, and explain each refusal with its remedy.

A program that attaches is detached at once; nothing stays in the kernel.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.diagnose import Cause, Diagnosis, Situation, diagnose
from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.diagnosis import machine
from kernel_matrix.guest.bpf.step_error import StepError, errno_name
from kernel_matrix.guest.system.kernel_log import KernelLog


@dataclass(frozen=True, slots=True)
class Attempt:
    """The result of loading and attaching one program."""

    #: empty: the object itself could not be opened
    program: str
    kind: str
    #: one line, such as ``attached`` or ``refused at load: EPERM``
    outcome: str
    #: None: loaded and attached
    diagnosis: Diagnosis | None = None

    def __str__(self) -> str:
        head = f"{self.program} ({self.kind}): {self.outcome}" if self.program else self.outcome
        return "\n  ".join([head, *(str(self.diagnosis).splitlines() if self.diagnosis else ())])


def attempts(path: Path) -> Iterator[Attempt]:
    """Load and attach each program of an object in turn."""
    try:
        kinds, destinations = steps.kinds(path), steps.destinations(path)
    except StepError as error:
        yield _refused("", "", error)
        return
    for program, kind in kinds.items():
        yield _attempt(path, program, kind, destinations[program])


def _attempt(path: Path, program: str, kind: str, to: str) -> Attempt:
    with ExitStack() as stack:
        try:
            loaded = stack.enter_context(steps.loaded(path, program))
            stack.enter_context(steps.by_section(loaded.programs[program]))
        except StepError as error:
            if (error.stage, error.errno) == ("attach", errno.EOPNOTSUPP):
                return Attempt(program, kind, "loaded; not attached: its section does not say where")
            return _refused(program, kind, error, to)
    lsm = diagnose(Situation("attach", kind=kind, lsms=machine.active_lsms()))
    if lsm.cause is Cause.LSM_INACTIVE:
        return Attempt(program, kind, "attached, in vain", lsm)
    return Attempt(program, kind, "attached")


def _refused(program: str, kind: str, error: StepError, to: str = "") -> Attempt:
    outcome = f"refused at {error.stage}: {errno_name(error.errno)}"
    return Attempt(program, kind, outcome, machine.explain(error, to=to))


def report(path: Path) -> tuple[bool, str]:
    """Try an object; return whether every program attached, and the report for the user."""
    head = f"{path.name} on {os.uname().release}, uid {os.geteuid()}"
    results = list(attempts(path))
    return all(attempt.diagnosis is None for attempt in results), "\n".join([head, *map(str, results)])


def report_in_guest(path: Path) -> tuple[bool, str]:
    """Do the same in a guest, where nothing else runs: the object caused whatever the kernel warns of."""
    log = KernelLog()
    attached, text = report(path)
    messages = log.new()
    return (False, f"{messages.wrong}:\n{messages.why}\n{text}") if messages.wrong else (attached, text)
