"""What the verifier refuses whatever the kernel: each program beside its like that loads."""

from __future__ import annotations

import errno

import pytest

from kernel_matrix.guest.bpf.calls.instructions import leave, load
from kernel_matrix.guest.bpf.calls.verifier import Log, verified
from kernel_matrix.guest.pytest.marks import refused_without
from kernel_matrix.guest.pytest.refusal import Refused
from suites.verifier.refusals import REFUSALS, Program, Refusal, with_first_value


def _load(program: Program, array: int, log: Log | None) -> None:
    with verified(program.kind, program.code(array), licence=program.licence, log=log):
        pass


@pytest.mark.parametrize("log", [None, Log()], ids=["without a log", "with a log"])
@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_a_program_is_refused(refused: Refused, array: int, refusal: Refusal, log: Log | None) -> None:
    """With the same errno whether anybody listens or not, and its like is not refused."""
    with refused(refusal.errno, stage="load") as answer:
        _load(refusal.wrong, array, log)
    if log is None:
        assert not answer.log
    else:
        assert refusal.says in answer.log
    _load(refusal.right, array, log)


@refused_without("uninit_stack_read", errno.EACCES, stage="load")
def test_a_stack_slot_that_was_never_written_may_be_read() -> None:
    """check_stack_read_fixed_off(): by those with CAP_PERFMON, who may see what was left there."""
    with verified("socket_filter", load("dw", 0, 10, -8) + leave()):
        pass


@refused_without("lookup_never_null", errno.EACCES, stage="load")
def test_an_arrays_value_of_a_constant_index_is_there(array: int) -> None:
    """get_constant_map_key(): the verifier knows that index 0 of an array is not NULL, and wants no question."""
    with verified("socket_filter", with_first_value(load("dw", 0, 0), leave())(array)):
        pass
