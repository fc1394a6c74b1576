"""How attaching to a kernel function or a tracepoint is refused.

libbpf opens a perf event for each; the errno is the kernel's. Beside each refusal stands the same call
succeeding with the name, or the program, that is right.
"""

from __future__ import annotations

import errno
import os

import pytest

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.pytest.refusal import Refused

#: a function that every kernel has and that may be probed
_FUNCTION = "do_nanosleep"


@pytest.mark.parametrize(
    ("symbol", "refused_errno"),
    [
        # create_local_trace_kprobe(): the name is not in kallsyms
        ("no_such_function", errno.ENOENT),
        # system calls carry their architecture's prefix: __x64_sys_execve is the name that exists
        ("sys_execve", errno.ENOENT),
        # register_kprobe(): NOKPROBE_SYMBOL(notify_die)
        ("notify_die", errno.EINVAL),
        # register_kprobe(): everything in .entry.text is on the blacklist
        ("entry_SYSCALL_64", errno.EINVAL),
        # register_kprobe(): a noinstr function
        ("exc_int3", errno.EINVAL),
    ],
)
@pytest.mark.parametrize("right", ["__x64_sys_execve"])
def test_a_function_that_cannot_be_probed(
    refused: Refused, programs: dict[str, steps.Program], symbol: str, refused_errno: int, right: str
) -> None:
    """Missing is ENOENT, forbidden is EINVAL."""
    with refused(refused_errno, stage="attach"), steps.kprobe(programs["fixture_kprobe"], symbol):
        pass
    with steps.kprobe(programs["fixture_kprobe"], right):
        pass


@pytest.mark.parametrize("kind", ["fixture_xdp", "fixture_socket", "fixture_tracepoint"])
def test_a_program_of_another_type_at_a_kprobe(refused: Refused, programs: dict[str, steps.Program], kind: str) -> None:
    """perf_event_set_bpf_prog() compares the program's type with the event's: EINVAL."""
    with refused(errno.EINVAL, stage="attach"), steps.kprobe(programs[kind], _FUNCTION):
        pass
    with steps.kprobe(programs["fixture_kprobe"], _FUNCTION):
        pass


@pytest.mark.parametrize(
    ("category", "name"),
    [
        ("no_such_category", "sys_enter_connect"),
        # Python's socket.send() enters sendto: there is no system call of this name on x86_64
        ("syscalls", "sys_enter_send"),
    ],
)
def test_a_tracepoint_that_does_not_exist(
    refused: Refused, programs: dict[str, steps.Program], category: str, name: str
) -> None:
    """Its folder in tracefs does not exist: ENOENT."""
    with refused(errno.ENOENT, stage="attach"), steps.tracepoint(programs["fixture_tracepoint"], category, name):
        pass
    with steps.tracepoint(programs["fixture_tracepoint"], "syscalls", "sys_enter_connect"):
        pass


@pytest.mark.parametrize("kind", ["fixture_xdp", "fixture_socket", "fixture_kprobe"])
@pytest.mark.parametrize("name", ["syscalls:sys_enter_connect", "sched:sched_switch"])
def test_a_program_of_another_type_at_a_tracepoint(
    refused: Refused, programs: dict[str, steps.Program], kind: str, name: str
) -> None:
    """As for a kprobe; system calls have tracepoints of a kind of their own, with the same answer."""
    category, name = name.split(":")
    with refused(errno.EINVAL, stage="attach"), steps.tracepoint(programs[kind], category, name):
        pass
    with steps.tracepoint(programs["fixture_tracepoint"], category, name):
        pass


def test_a_scheduler_tracepoint_survives_switching_on_and_off(programs: dict[str, steps.Program]) -> None:
    """Each time the kernel rewrites an instruction of schedule() while every processor runs it.

    An emulator that runs a processor's stale translation of it kills the kernel (thread=single in
    harness/kernel_matrix/vm/boot_spec.py).
    """
    for _ in range(50):
        with steps.tracepoint(programs["fixture_tracepoint"], "sched", "sched_switch"):
            os.sched_yield()
