"""A loaded program that is to be attached, with what its section and the table say of where."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.foreign.configuring import Foreign
from kernel_matrix.guest.bpf.foreign.hooks.place import Place
from kernel_matrix.guest.bpf.foreign.loading import LoadedObject
from kernel_matrix.guest.bpf.foreign.undeclared import Undeclared
from kernel_matrix.guest.bpf.library import captured_messages, libbpf
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.bpf.steps import Program, XdpFlags


@dataclass(frozen=True, slots=True)
class Attaching:
    """A loaded program that is to be attached."""

    foreign: Foreign
    obj: LoadedObject
    program: Program
    place: Place
    #: detaches it
    stack: ExitStack
    #: how XDP is attached, and stays so; None: in each mode, one after another
    xdp: XdpFlags | None = None

    @property
    def section(self) -> str:
        """Its section, as the table or the file has it."""
        return self.foreign.section(self.program.name)

    @property
    def hook(self) -> str:
        """The first word of its section, without the suffixes that do not concern where it is attached."""
        return self.section.partition("/")[0].removesuffix(".s").removesuffix(".w")

    @property
    def target(self) -> str:
        """Where the table or its section attaches it; empty: neither says."""
        return self.foreign.settings.targets.get(self.program.name) or self.section.partition("/")[2]

    @property
    def attach_type(self) -> str:
        """Libbpf's name of its attach type."""
        number = libbpf().bpf_program__expected_attach_type(self.program.pointer)
        return str(libbpf().libbpf_bpf_attach_type_str(number).decode())

    def link(self, what: str, step: Callable[[], int | None]) -> int:
        """Attach by a function of libbpf's that returns a link; raises StepError."""
        with captured_messages() as messages:
            link = step()
            if not link:
                kind = steps.kind_of(self.program.pointer)
                error = StepError(ctypes.get_errno(), "attach", what, messages(), kind)
                error.section = self.section
                if kind != "struct_ops":
                    error.attach_type = self.attach_type
                raise error
        self.stack.callback(steps.destroy_link, link, what)
        return link

    def undeclared(self, why: str, example: str) -> Undeclared:
        """Return that its target is not declared."""
        return Undeclared(why, self.foreign.line("targets", self.program.name, f'"{example}"'))
