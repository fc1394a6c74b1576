"""What the diagnosis tests share."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable

from kernel_matrix.diagnose import Diagnosis
from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.diagnosis import machine
from kernel_matrix.guest.bpf.step_error import StepError


def diagnosed(step: Callable[[], object]) -> Diagnosis:
    """Do what must be refused, and return why it was: in the process, or the child, that did it."""
    try:
        step()
    except StepError as error:
        return machine.explain(error)
    raise AssertionError("it was not refused")


def load(name: str, *programs: str) -> None:
    """Load programs of an object."""
    with steps.loaded(steps.object_path(name), *programs):
        pass


def attach(name: str, program: str) -> None:
    """Load a program and attach it as its section says."""
    with steps.loaded(steps.object_path(name), program) as bpf_object, steps.by_section(bpf_object.programs[program]):
        pass


def without_bpf(step: Callable[[], object]) -> Callable[[], object]:
    """Return the step in a process for which there is no bpf(): a seccomp filter answers ENOSYS, as no BPF would."""

    def filtered() -> object:
        # classic BPF, linux/filter.h: load the system call's number; is it bpf (321)? ENOSYS; otherwise go on
        code = b"".join(
            struct.pack("=HBBI", *instruction)
            for instruction in [
                (0x20, 0, 0, 0),
                (0x15, 0, 1, 321),
                (0x06, 0, 0, 0x50000 | 38),
                (0x06, 0, 0, 0x7FFF0000),
            ]
        )
        buffer = ctypes.create_string_buffer(code, len(code))
        program = struct.pack("=HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
        libc = ctypes.CDLL(None, use_errno=True)
        # PR_SET_NO_NEW_PRIVS, and PR_SET_SECCOMP with SECCOMP_MODE_FILTER of linux/prctl.h and linux/seccomp.h
        if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return step()

    return filtered
