"""Compile sources for other guests, which get the result with their project. The first program of such a guest."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from kernel_matrix.guest.bpf.loaders import bcc
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.bpf.steps import object_path
from kernel_matrix.guest.system.upkeep import alive
from kernel_matrix.shared.bpf import compiled


def main(objects: Sequence[str]) -> None:
    """Compile the sources of these objects; write a line to the host for each.

    An empty line is a sign of life. What a compiler prints is on the console.
    """
    # what compilers print must not get between the lines
    host = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def write(line: str) -> None:
        host.write(f"{line}\n")
        host.flush()

    alive.beat_through(lambda _: write(""))
    for name in objects:
        try:
            made = bcc.compiled_anew(object_path(name))
        except StepError as error:
            print(f"not compiled: {error}\n{error.log}", file=sys.stderr)
            write(compiled.Refused(name, _reason(error)).as_text())
            continue
        write(compiled.as_text(made))


def _reason(error: StepError) -> str:
    """Return the compiler's first error as one line, or what the loader says where it has none."""
    lines = [line.strip() for line in error.log.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line]
    return next(iter((*errors, *lines)), str(error.strerror))
