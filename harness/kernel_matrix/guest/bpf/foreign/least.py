"""Which capabilities suffice to load and attach a program: tried, with the kernel's own checks."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from functools import partial

from kernel_matrix.diagnose.situation import needed
from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.diagnosis import machine
from kernel_matrix.guest.bpf.foreign import targets
from kernel_matrix.guest.bpf.foreign.loading import loaded
from kernel_matrix.guest.bpf.foreign.place import Place
from kernel_matrix.guest.bpf.foreign.trial import Trial
from kernel_matrix.guest.bpf.foreign.undeclared import Undeclared
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.system.privilege import Cap, only_effective

_PREFIX = "CAP_"


def capabilities(trial: Trial, program: str, place: Place) -> tuple[str, ...]:
    """Return a smallest set of capabilities with which a program is loaded and attached at this kernel's defaults.

    The refusals say what to add, from what the program's type is known to need; then each is tried to be left out.
    Raises StepError when every capability together does not suffice, which is the refusal of any loader.
    """
    with trial.having(program) as obj, ExitStack() as stack:
        kind = steps.kind_of(obj.programs[program].pointer)
        try:
            targets.attach(trial.foreign, obj, program, place, stack)
            attaches = True
        except Undeclared:
            # it has no target here: the answer is what loading takes
            attaches = False
    with place.prepared_for(kind):
        refused = partial(_refused, trial, program, place, attaches=attaches)
        has = {Cap[name.removeprefix(_PREFIX)] for name in needed(kind)}
        while (error := refused(has)) is not None:
            more = {Cap[name.removeprefix(_PREFIX)] for name in machine.explain(error).cure.capabilities} - has
            if not more and has == set(Cap):
                raise error
            has |= more or set(Cap)
        for cap in sorted(has, key=lambda cap: (cap is not Cap.SYS_ADMIN, cap.name)):
            if refused(has - {cap}) is None:
                has -= {cap}
    return tuple(f"{_PREFIX}{cap.name}" for cap in sorted(has, key=lambda cap: cap.name))


def _refused(trial: Trial, program: str, place: Place, caps: Collection[Cap], *, attaches: bool) -> StepError | None:
    """Load the program as the trial has it, and attach it, with exactly these capabilities; return the refusal.

    Nothing is pinned, so no map is there already.
    """
    # what was attached is detached with all capabilities
    with ExitStack() as stack:
        try:
            with only_effective(caps):
                obj = stack.enter_context(loaded(trial.foreign, None, "" if trial.is_in_whole(program) else program))
                if attaches:
                    targets.attach(trial.foreign, obj, program, place, stack)
        except StepError as error:
            return error
    return None
