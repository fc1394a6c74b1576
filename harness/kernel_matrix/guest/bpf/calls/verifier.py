"""Pass instructions to the verifier with one BPF_PROG_LOAD, with or without a buffer for its log."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from kernel_matrix.guest.bpf.library import libbpf
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.bpf.structs import ProgLoadOpts

#: linux/bpf.h has no names for these: kernel, linux/bpf_verifier.h, BPF_LOG_LEVEL1 and BPF_LOG_STATS
EVERY_INSTRUCTION = 1
STATISTICS = 4


@dataclass(frozen=True, slots=True)
class Log:
    """The buffer that a loader provides for the verifier's log."""

    #: in bytes; the kernel accepts 128 and more
    size: int = 1 << 16
    level: int = EVERY_INSTRUCTION


@dataclass(frozen=True, slots=True)
class Verified:
    """A program that the kernel accepted; it is released when the context ends."""

    fd: int
    #: the verifier's log; empty without a buffer for it
    log: str


@contextmanager
def verified(
    kind: str, code: bytes, *, licence: str = "GPL", log: Log | None = None, flags: int = 0
) -> Generator[Verified]:
    """Load a program of libbpf's type name, such as ``socket_filter``; raises StepError with the verifier's log."""
    buffer = ctypes.create_string_buffer(code, len(code))
    with _loaded(_type_number(kind), ctypes.addressof(buffer), len(code) // 8, licence, log, flags) as program:
        yield program


def count_only(kind: str, count: int) -> None:
    """Load a program of ``count`` instructions at address 0: EFAULT shows that the kernel accepted the count."""
    with _loaded(_type_number(kind), 0, count, "GPL", None, 0):
        pass


def _type_number(kind: str) -> int:
    step = libbpf().libbpf_bpf_prog_type_str
    number = 0
    while (name := step(number)) != kind.encode():
        if name is None:
            raise ValueError(f"libbpf knows no program type {kind}")
        number += 1
    return number


@contextmanager
def _loaded(number: int, code: int, count: int, licence: str, log: Log | None, flags: int) -> Generator[Verified]:
    text = ctypes.create_string_buffer(log.size if log else 1)
    opts = ProgLoadOpts(sz=ctypes.sizeof(ProgLoadOpts), prog_flags=flags)
    if log is not None:
        opts.log_level, opts.log_size, opts.log_buf = log.level, log.size, ctypes.addressof(text)
    fd = int(libbpf().bpf_prog_load(number, b"verified", licence.encode(), code, count, ctypes.byref(opts)))
    messages = text.value.decode(errors="replace")
    if fd < 0:
        raise StepError(
            -fd, "load", f"{count} instructions", messages, libbpf().libbpf_bpf_prog_type_str(number).decode()
        )
    try:
        yield Verified(fd, messages)
    finally:
        os.close(fd)
