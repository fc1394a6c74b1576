"""Which capabilities suffice to load and attach a program: tried, with the kernel's own checks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager

from kernel_matrix.diagnose.situation import needed
from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.diagnosis import machine
from kernel_matrix.guest.bpf.foreign.hooks import targets
from kernel_matrix.guest.bpf.foreign.hooks.place import Place
from kernel_matrix.guest.bpf.foreign.trial import Trial
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.system.privilege import Cap, only_effective

_PREFIX = "CAP_"

#: tries a step with exactly these capabilities, and returns its refusal
Step = Callable[[frozenset[Cap]], StepError | None]


def capabilities(trial: Trial, program: str, place: Place) -> tuple[str, ...]:
    """Return a smallest set of capabilities with which a program is loaded and attached at this kernel's defaults.

    Raises StepError when every capability together does not suffice, which is the refusal of any loader.
    """
    with _trying(trial, program, place) as (kind, done):
        has = smallest(_caps(needed(kind)) | trial.known_to_load(program), done, _lacking)
    return tuple(f"{_PREFIX}{cap.name}" for cap in sorted(has, key=lambda cap: cap.name))


def suffice(trial: Trial, program: str, place: Place, names: Collection[str]) -> bool:
    """Whether a program is loaded and attached with these capabilities, which may be others than a smallest set."""
    with _trying(trial, program, place) as (_, done):
        return done(frozenset(cap for cap in Cap if f"{_PREFIX}{cap.name}" in names)) is None


@contextmanager
def _trying(trial: Trial, program: str, place: Place) -> Iterator[tuple[str, Step]]:
    """Yield the program's type, and what loads and attaches it with some capabilities."""
    with trial.having(program) as obj:
        kind = steps.kind_of(obj.programs[program].pointer)
    # what has no target here needs what loading takes
    attaches = trial.attaches(program, place)

    def attached(caps: frozenset[Cap]) -> StepError | None:
        return _attach_refused(trial, program, place, caps) if attaches else None

    def done(caps: frozenset[Cap]) -> StepError | None:
        # the kernel keeps nothing of who loaded a program, so it is attached as it was loaded for all tests
        return trial.load_refused(program, caps) or attached(caps)

    with place.prepared_for(kind):
        yield kind, done


def smallest(start: Collection[Cap], step: Step, lacking: Callable[[StepError], Collection[Cap]]) -> frozenset[Cap]:
    """Return a set with which the step succeeds, and with no smaller part of it.

    The refusals say what to add to ``start``; then each is tried to be left out, CAP_SYS_ADMIN first. Raises StepError.
    """
    has = frozenset(start)
    while (error := step(has)) is not None:
        more = frozenset(lacking(error)) - has
        if not more and has == frozenset(Cap):
            raise error
        has |= more or frozenset(Cap)
    for cap in sorted(has, key=lambda cap: (cap is not Cap.SYS_ADMIN, cap.name)):
        if step(has - {cap}) is None:
            has -= {cap}
    return has


def _lacking(error: StepError) -> frozenset[Cap]:
    return _caps(machine.explain(error).cure.capabilities)


def _caps(names: Collection[str]) -> frozenset[Cap]:
    return frozenset(Cap[name.removeprefix(_PREFIX)] for name in names)


def _attach_refused(trial: Trial, program: str, place: Place, caps: Collection[Cap]) -> StepError | None:
    """Attach the program with exactly these capabilities; it is detached with all of them."""
    with trial.having(program) as obj, ExitStack() as stack:
        try:
            with only_effective(caps):
                targets.attach(trial.foreign, obj, program, place, stack)
        except StepError as error:
            return error
    return None
