"""What an object needs, and what each kernel has of it: the data of a page about an object. Pure.

Nothing here was tried in a guest unless it says so: an answer is derived from files, an outcome was measured by a run.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

from kernel_matrix.shared.outcomes.cells import Outcome

#: grows when a reader of an older version would misread this one
VERSION = 1


class State(enum.StrEnum):
    """What a kernel's files say about a need."""

    YES = "yes"
    NO = "no"
    #: they do not say it
    UNKNOWN = "unknown"


class Need(enum.StrEnum):
    """The kinds of what a program needs."""

    PROGRAM_TYPE = "program type"
    ATTACH_TYPE = "attach type"
    TARGET = "attach target"
    MAP_TYPE = "map type"
    HELPER = "helper"
    FUNCTION = "kernel function"
    SYMBOL = "kernel symbol"
    CONFIG = "configuration"
    #: a CO-RE relocation
    RELOCATION = "relocation"
    #: bytes of the context at an offset that no relocation moves
    CONTEXT = "fixed offset"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one kernel has of a need."""

    state: State
    #: a few words: the value of a relocation, the field that is read, why it is unknown
    text: str = ""
    #: the number that a relocation becomes
    value: int | None = None
    #: the step at which this kernel refuses the program for it at the latest, such as ``load``; empty: it is not known
    #: to refuse it
    refused_at: str = ""


@dataclass(frozen=True, slots=True)
class Requirement:
    """Something that programs need from a kernel."""

    need: Need
    #: such as ``struct task_struct.pid: offset``, ``bpf_ringbuf_output``
    name: str
    programs: tuple[str, ...]
    #: kernel -> what it has
    answers: dict[str, Answer]
    #: the object is made to load without it
    optional: bool = False

    @property
    def differs(self) -> bool:
        """Whether two kernels of which it is known have something else."""
        known = {(answer.state, answer.text) for answer in self.answers.values() if answer.state is not State.UNKNOWN}
        return len(known) > 1

    @property
    def missing(self) -> tuple[str, ...]:
        """The kernels that are known to lack it."""
        return tuple(kernel for kernel, answer in self.answers.items() if answer.state is State.NO)


@dataclass(frozen=True, slots=True)
class ProgramNeeds:
    """A program, as the object file describes it."""

    name: str
    section: str
    #: without BPF_PROG_TYPE_; empty: the section's name does not tell it, only the object's own loader knows it
    type: str
    attach: str
    target: str
    #: where its source begins; empty and 0 without line information
    file: str
    line: int
    maps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KernelColumn:
    """A kernel of the page."""

    name: str
    #: ``uname -r`` of its image
    release: str
    #: why its types could not be read; empty: they were
    unread: str = ""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a run measured of a program on a kernel."""

    program: str
    kernel: str
    #: the last part of the cell's name, such as ``load``
    step: str
    outcome: Outcome
    #: the first line of the reason
    reason: str = ""
    #: what it observed, such as the capabilities that it needs: names and values
    observed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Played:
    """What a scenario of the object came to on a kernel: whether it did what is declared."""

    scenario: str
    kernel: str
    outcome: Outcome
    #: the first line of the reason
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Compatibility:
    """Everything that is known about an object on some kernels."""

    version: int
    object: str
    sha256: str
    #: the oldest first
    kernels: tuple[KernelColumn, ...]
    programs: tuple[ProgramNeeds, ...]
    #: map -> its type without BPF_MAP_TYPE_, or its number
    maps: dict[str, str]
    requirements: tuple[Requirement, ...]
    #: what is measured, and by which run; empty: nothing was
    measured: tuple[Measurement, ...] = ()
    run: str = ""
    #: the project's scenarios of it, by that run
    played: tuple[Played, ...] = ()
    #: what a reader should know, a line each
    notes: tuple[str, ...] = field(default=())

    def of_program(self, program: str) -> tuple[Requirement, ...]:
        """Return what a program needs."""
        return tuple(one for one in self.requirements if program in one.programs)

    def refusals(self, program: str, kernel: str) -> tuple[Requirement, ...]:
        """Return what a kernel is known, from files, to refuse a program for."""
        needed = (one for one in self.of_program(program) if not one.optional)
        return tuple(one for one in needed if kernel in one.answers and one.answers[kernel].refused_at)

    def doubts(self, program: str, kernel: str) -> tuple[Requirement, ...]:
        """Return what a kernel is known, from files, to lack or to have elsewhere without refusing the program for it.

        A relocation that asks whether something exists is no doubt: the program is made for either answer.
        """
        needed = (one for one in self.of_program(program) if not one.optional and kernel in one.missing)
        return tuple(one for one in needed if not (one.answers[kernel].refused_at or one.answers[kernel].value == 0))

    def outcomes(self, program: str, kernel: str) -> tuple[Measurement, ...]:
        """Return what was measured of a program on a kernel."""
        return tuple(one for one in self.measured if (one.program, one.kernel) == (program, kernel))

    def oldest(self, program: str, step: str) -> str:
        """Return the oldest kernel on which a step was measured and succeeded; empty: on none."""
        return next((one.name for one in self.kernels if self._succeeded(program, one.name, step)), "")

    def _succeeded(self, program: str, kernel: str, step: str) -> bool:
        return any(one.step == step and one.outcome is Outcome.PASS for one in self.outcomes(program, kernel))


def moved(requirements: Iterable[Requirement]) -> tuple[Requirement, ...]:
    """Return the fields that have another offset or size, or are missing, on some kernels."""
    places = (one for one in requirements if one.need in {Need.RELOCATION, Need.CONTEXT})
    return tuple(one for one in places if one.differs)
