"""How large a program may be: what is counted before it is read, and what the verifier goes through.

A program of BPF_COMPLEXITY_LIMIT_INSNS (1,000,000) instructions takes the verifier 3 GB on 7.3, which no guest has.
That the limit is exactly there is seen without one: bpf_prog_load() compares the count before it reads an instruction,
so EFAULT for a program that is not there means that its count was accepted. What is not tested is that such a program,
once read, loads.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf.calls.instructions import COMPLEXITY_LIMIT, MAX_INSNS, add, copy, jump_if, leave, mov
from kernel_matrix.guest.bpf.calls.verifier import STATISTICS, Log, count_only, verified
from kernel_matrix.guest.pytest.refusal import Refused
from kernel_matrix.guest.system.privilege import NOBODY, Cap, run_as


def _load(code: bytes, log: Log | None = None) -> str:
    with verified("socket_filter", code, log=log) as program:
        return program.log


def test_a_million_instructions_are_not_too_many_and_one_more_is(refused: Refused) -> None:
    """bpf_prog_load(): E2BIG past the limit, before the instructions are read; at the limit they are read."""
    with refused(errno.EFAULT, stage="load"):
        count_only("socket_filter", COMPLEXITY_LIMIT)
    with refused(errno.E2BIG, stage="load"):
        count_only("socket_filter", COMPLEXITY_LIMIT + 1)


def test_no_instruction_is_too_few(refused: Refused) -> None:
    """bpf_prog_load(): the same check, so the same E2BIG."""
    with refused(errno.E2BIG, stage="load"):
        count_only("socket_filter", 0)
    _load(mov(0, 0) + leave())


def _straight(count: int) -> bytes:
    return mov(0, 0) * (count - 1) + leave()


@pytest.fixture
def unprivileged_bpf() -> Iterator[None]:
    """Open bpf() to everybody, and put the sysctl back."""
    sysctl = Path("/proc/sys/kernel/unprivileged_bpf_disabled")
    before = sysctl.read_text()
    sysctl.write_text("0")
    yield
    sysctl.write_text(before)


@pytest.mark.usefixtures("unprivileged_bpf")
def test_the_unprivileged_may_load_4096_instructions(refused: Refused) -> None:
    """bpf_prog_load(): BPF_MAXINSNS without bpf_capable(); CAP_BPF alone lifts it."""
    run_as(lambda: _load(_straight(MAX_INSNS)), caps=(), uid=NOBODY)
    with refused(errno.E2BIG, stage="load"):
        run_as(lambda: _load(_straight(MAX_INSNS + 1)), caps=(), uid=NOBODY)
    run_as(lambda: _load(_straight(MAX_INSNS + 1)), caps={Cap.BPF}, uid=NOBODY)


#: how often the loop of `_processing` goes round, and how many instructions one round has
_ROUNDS, _ROUND = 200, 4990


def _processing(total: int) -> bytes:
    """Return a program of which the verifier goes through so many instructions: a loop, and what is missing behind."""
    body = mov(0, 0) * (_ROUND - 2) + add(6, 1) + jump_if(6, "<", _ROUNDS, -_ROUND)
    return mov(6, 0) + body + mov(0, 0) * (total - 2 - _ROUNDS * _ROUND) + leave()


def test_the_verifier_visits_a_million_instructions_at_most(refused: Refused) -> None:
    """do_check(): E2BIG at the first one past the limit; it says so to whoever asks for no more than statistics."""
    log = _load(_processing(COMPLEXITY_LIMIT), Log(level=STATISTICS))
    assert f"processed {COMPLEXITY_LIMIT} insns (limit {COMPLEXITY_LIMIT})" in log
    with refused(errno.E2BIG, stage="load") as refusal:
        _load(_processing(COMPLEXITY_LIMIT + 1), Log(level=STATISTICS))
    assert f"BPF program is too large. Processed {COMPLEXITY_LIMIT + 1} insn" in refusal.log


#: the smallest buffer that every kernel takes (bpf_check(), before 6.4)
_SMALL = 128


def test_a_log_changes_the_errno_of_a_program_that_is_too_large(refused: Refused) -> None:
    """bpf_check(): ENOSPC when the log is full comes over E2BIG, so the same program is refused in two ways.

    The statistics alone have 150 characters or more. A log of each of a million instructions would be the same case,
    but takes half a minute where it goes on past the buffer's end ("bpf: Switch BPF verifier log to be a rotating
    log by default").
    """
    code = _processing(COMPLEXITY_LIMIT + 1)
    with refused(errno.E2BIG, stage="load"):
        _load(code, Log(level=STATISTICS))
    with refused(errno.ENOSPC, stage="load"):
        _load(code, Log(_SMALL, level=STATISTICS))


def test_a_log_that_is_too_small_refuses_what_would_load(refused: Refused) -> None:
    """bpf_check(): ENOSPC for a program that nothing is wrong with, and in place of another errno."""
    right, wrong = _straight(64), mov(0, 0) * 63 + copy(0, 2) + leave()
    assert _load(right, Log())
    with refused(errno.ENOSPC, stage="load"):
        _load(right, Log(_SMALL))
    with refused(errno.EACCES, stage="load"):
        _load(wrong, Log())
    with refused(errno.ENOSPC, stage="load"):
        _load(wrong, Log(_SMALL))
