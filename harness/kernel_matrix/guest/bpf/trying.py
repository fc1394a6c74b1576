"""Load and attach each program of an object, one at a time, and say of each that is refused why and what to do.

What attaches is detached at once; nothing stays in the kernel.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.diagnose import Cause, Diagnosis, Situation, diagnose
from kernel_matrix.guest.bpf import machine, steps
from kernel_matrix.guest.bpf.step_error import StepError, errno_name
from kernel_matrix.guest.system.kernel_log import KernelLog


@dataclass(frozen=True, slots=True)
class Attempt:
    """How far one program came."""

    #: empty: the object itself could not be opened
    program: str
    kind: str
    #: one line, such as ``attached`` or ``refused at load: EPERM``
    outcome: str
    #: None: all went well
    diagnosis: Diagnosis | None = None

    def __str__(self) -> str:
        head = f"{self.program} ({self.kind}): {self.outcome}" if self.program else self.outcome
        return "\n  ".join([head, *(str(self.diagnosis).splitlines() if self.diagnosis else ())])


def attempts(path: Path) -> Iterator[Attempt]:
    """Try each program of an object."""
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
            found = stack.enter_context(steps.loaded(path, program))
            stack.enter_context(steps.by_section(found.programs[program]))
        except StepError as error:
            if (error.stage, error.errno) == ("attach", errno.EOPNOTSUPP):
                return Attempt(program, kind, "loaded; not attached: its section does not say where")
            return _refused(program, kind, error, to)
    unheard = diagnose(Situation("attach", kind=kind, lsms=machine.active_lsms()))
    if unheard.cause is Cause.LSM_INACTIVE:
        return Attempt(program, kind, "attached, in vain", unheard)
    return Attempt(program, kind, "attached")


def _refused(program: str, kind: str, error: StepError, to: str = "") -> Attempt:
    outcome = f"refused at {error.stage}: {errno_name(error.errno)}"
    return Attempt(program, kind, outcome, machine.explain(error, to=to))


def report(path: Path) -> tuple[bool, str]:
    """Try an object and return whether all went well, and what to tell the user."""
    head = f"{path.name} on {os.uname().release}, uid {os.geteuid()}"
    tried = list(attempts(path))
    return all(each.diagnosis is None for each in tried), "\n".join([head, *map(str, tried)])


def report_in_guest(path: Path) -> tuple[bool, str]:
    """Do the same in a guest, where nothing else runs: what its kernel warns of is this object's."""
    log = KernelLog()
    well, text = report(path)
    heard = log.new()
    return (False, f"{heard.wrong}:\n{heard.why}\n{text}") if heard.wrong else (well, text)
