"""What a locked-down kernel refuses of BPF, by level, and what it does not.

Kernel: security_locked_down() with the reasons of include/linux/security.h. ``integrity`` covers
LOCKDOWN_BPF_WRITE_USER; ``confidentiality`` that and LOCKDOWN_KPROBES, LOCKDOWN_BPF_READ_KERNEL and LOCKDOWN_TRACEFS. A
helper that is locked down has no prototype (bpf_tracing_func_proto()), so its program is refused like one with an
unknown helper: EINVAL. LOCKDOWN_PERF is about the registers in a sample and touches no BPF program.
"""

from __future__ import annotations

import errno
from contextlib import ExitStack
from pathlib import Path

import pytest

from kernel_matrix.diagnose import Cause
from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.calls import bpf_calls
from kernel_matrix.guest.bpf.calls.instructions import add, call, copy, leave, mov
from kernel_matrix.guest.bpf.calls.verifier import verified
from kernel_matrix.guest.bpf.diagnosis import machine
from kernel_matrix.guest.bpf.step_error import Stage, StepError
from kernel_matrix.guest.pytest.marks import boots_with
from kernel_matrix.guest.pytest.refusal import Refused

#: linux/bpf.h
_PROBE_READ_USER = 112

#: programs of fixtures/variants, and how each is used
_ATTACHED = ("kprobe", "tracepoint", "raw_tracepoint", "fentry")
_LOADED = ("read_kernel", "read", "read_user", "write_user", "xdp")

#: (what, stage, errno); what is not here goes on working
_INTEGRITY: tuple[tuple[str, Stage, int], ...] = (("write_user", "load", errno.EINVAL),)
_CONFIDENTIALITY: tuple[tuple[str, Stage, int], ...] = (
    *_INTEGRITY,
    ("read_kernel", "load", errno.EINVAL),
    # before 5.5 the only helper to read with; it reads the kernel as well
    ("read", "load", errno.EINVAL),
    # not the kernel's doing: see the test of its own below
    ("read_user", "load", errno.EINVAL),
    # __register_trace_kprobe()
    ("kprobe", "attach", errno.EPERM),
    # tracefs_create_file() makes no file at all, so a tracepoint has no number
    ("tracepoint", "attach", errno.ENOENT),
)


def _use(what: str) -> None:
    """Load a program, and attach it where that is the question."""
    name = "nothing" if what == "kprobe" else what
    with ExitStack() as stack:
        bpf_object = stack.enter_context(steps.loaded(steps.object_path("fixtures/variants"), f"variant_{name}"))
        program = bpf_object.programs[f"variant_{name}"]
        if what == "kprobe":
            stack.enter_context(steps.kprobe(program, "do_nanosleep"))
        elif what == "tracepoint":
            stack.enter_context(steps.tracepoint(program, "sched", "sched_switch"))
        elif what == "raw_tracepoint":
            bpf_calls.raw_tracepoint(program.fd, "sched_switch", stack)
        elif what == "fentry":
            stack.enter_context(steps.by_section(program))


def _allowed(refusals: tuple[tuple[str, Stage, int], ...]) -> list[str]:
    return [what for what in (*_ATTACHED, *_LOADED) if what not in {refusal[0] for refusal in refusals}]


def _level() -> str:
    """Return the level in brackets."""
    text = Path("/sys/kernel/security/lockdown").read_text()
    return text.partition("[")[2].partition("]")[0]


@pytest.mark.parametrize("what", [*_ATTACHED, *_LOADED])
def test_an_unlocked_kernel_refuses_nothing(what: str) -> None:
    """Each program that the other tests see refused works here."""
    assert _level() == "none"
    _use(what)


@boots_with("lockdown_integrity")
@pytest.mark.parametrize(("what", "stage", "refused_errno"), _INTEGRITY)
def test_integrity_refuses(refused: Refused, what: str, stage: Stage, refused_errno: int) -> None:
    """Only what changes memory."""
    assert _level() == "integrity"
    with refused(refused_errno, stage=stage):
        _use(what)


@boots_with("lockdown_integrity")
@pytest.mark.parametrize("what", _allowed(_INTEGRITY))
def test_integrity_allows(what: str) -> None:
    """Kprobes, tracefs and reading the kernel's memory among it."""
    assert _level() == "integrity"
    _use(what)


@boots_with("lockdown_confidentiality")
@pytest.mark.parametrize(("what", "stage", "refused_errno"), _CONFIDENTIALITY)
def test_confidentiality_refuses(refused: Refused, what: str, stage: Stage, refused_errno: int) -> None:
    """Whatever could show the kernel's memory, and the diagnosis says so."""
    assert _level() == "confidentiality"
    with refused(refused_errno, stage=stage) as refusal:
        _use(what)
    assert isinstance(refusal.error, StepError)
    diagnosis = machine.explain(refusal.error)
    assert diagnosis.cause is Cause.LOCKDOWN, diagnosis


@boots_with("lockdown_confidentiality")
def test_reading_a_processs_memory_is_refused_by_libbpf_alone() -> None:
    """The kernel takes bpf_probe_read_user(); libbpf makes bpf_probe_read() of it, which the kernel does not take.

    libbpf tries out whether there is bpf_probe_read_kernel() (probe_kern_probe_read_kernel()), takes the refusal for a
    kernel of before 5.5, and writes the older helper over both newer ones (bpf_object__sanitize_prog()).
    """
    assert _level() == "confidentiality"
    code = [copy(1, 10), add(1, -8), mov(2, 8), mov(3, 0), call(_PROBE_READ_USER), mov(0, 0), leave()]
    with verified("kprobe", b"".join(code)):
        pass


@boots_with("lockdown_confidentiality")
@pytest.mark.parametrize("what", _allowed(_CONFIDENTIALITY))
def test_confidentiality_allows(what: str) -> None:
    """Hooks that show a program no more than their own arguments."""
    assert _level() == "confidentiality"
    _use(what)
