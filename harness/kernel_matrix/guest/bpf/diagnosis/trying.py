"""Load and attach the programs of an object on this machine, and explain each refusal with its remedy.

A program that attaches is detached at once; nothing stays in the kernel, and pins are below a folder of ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.diagnose import Diagnosis
from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.diagnosis import machine
from kernel_matrix.guest.bpf.foreign import environment
from kernel_matrix.guest.bpf.foreign.configuring import Foreign
from kernel_matrix.guest.bpf.foreign.hooks import targets
from kernel_matrix.guest.bpf.foreign.hooks.place import Place
from kernel_matrix.guest.bpf.foreign.trial import Trial
from kernel_matrix.guest.bpf.foreign.undeclared import Undeclared
from kernel_matrix.guest.bpf.step_error import StepError, errno_name
from kernel_matrix.shared.bpf import bpf_elf
from kernel_matrix.shared.bpf.object_table import ObjectSettings


@dataclass(frozen=True, slots=True)
class Attempt:
    """The result of loading and attaching one program."""

    #: empty: the object as a whole
    program: str
    kind: str
    #: one line, such as ``attached`` or ``refused at load: EPERM``
    outcome: str
    #: None: loaded and attached, or not to be judged
    diagnosis: Diagnosis | None = None

    @property
    def succeeded(self) -> bool:
        """Whether it is loaded, and attached where it can be."""
        return self.outcome.startswith(("attached", "loaded")) and self.diagnosis is None

    def __str__(self) -> str:
        head = f"{self.program} ({self.kind}): {self.outcome}" if self.program else self.outcome
        return "\n  ".join([head, *(str(self.diagnosis).splitlines() if self.diagnosis else ())])


def attempts(path: Path, settings: ObjectSettings | None = None) -> Iterator[Attempt]:
    """Load and attach each program of an object in turn; one refusal of the object itself is one attempt."""
    file = bpf_elf.read(path)
    with environment.bpffs() as pins, closing(Place()) as place:
        trial = Trial(Foreign(path, path.name, file, settings or ObjectSettings(), place), pins)
        with closing(trial):
            try:
                kinds = steps.kinds(path)
            except StepError as error:
                yield _refused("", "", error)
                return
            if not kinds:
                yield _whole(trial)
            for program, kind in kinds.items():
                yield _attempt(trial, place, program, kind)


def _whole(trial: Trial) -> Attempt:
    try:
        trial.whole()
    except StepError as error:
        return _refused("", "", error)
    except Undeclared as error:
        return Attempt("", "", f"undeclared: {error}")
    return Attempt("", "", "loaded: an object of maps")


def _attempt(trial: Trial, place: Place, program: str, kind: str) -> Attempt:
    try:
        with trial.having(program) as obj, ExitStack() as stack:
            if trial.foreign.section(program).partition("/")[0] in targets.CALLED:
                return Attempt(program, kind, "loaded: it is called, not attached")
            where = targets.attach(trial.foreign, obj, program, place, stack)
    except StepError as error:
        return _refused(program, kind, error)
    except Undeclared as error:
        return Attempt(program, kind, f"undeclared: {error}")
    return Attempt(program, kind, f"attached: {where}")


def _refused(program: str, kind: str, error: StepError) -> Attempt:
    return Attempt(program, kind, refusal(error), machine.explain(error))


def refusal(error: StepError) -> str:
    """Return what was refused: the stage and the errno; without an errno libbpf refused, or it has no effect."""
    if error.errno:
        return f"refused at {error.stage}: {errno_name(error.errno)}"
    return "attached, in vain" if error.stage == "attach" else f"refused at {error.stage}"


def explained(error: StepError) -> str:
    """Return a refusal with its cause and its remedy, in one line."""
    diagnosis = machine.explain(error)
    return f"{refusal(error)}: {diagnosis.cause}: {diagnosis.why}; remedy: {diagnosis.remedy}"


def report(path: Path) -> tuple[bool, str]:
    """Try an object; return whether every program attached, and the report for the user."""
    head = f"{path.name} on {os.uname().release}, uid {os.geteuid()}"
    results = list(attempts(path))
    return all(attempt.succeeded for attempt in results), "\n".join([head, *map(str, results)])
