"""The differences between architectures, with a module for each; it uses the standard library only.

Not here: what is the same on all architectures with the ioctl numbers of asm-generic (the agent's ioctls).
"""

from __future__ import annotations

import os

from kernel_matrix.arch.architecture import Architecture
from kernel_matrix.arch.x86_64 import X86_64

__all__ = ["CURRENT", "IN_THE_KERNEL", "Architecture", "of_host"]

#: names of architectures in the kernel's source, by which tools for BPF name the objects of each
IN_THE_KERNEL = ("x86", "arm", "arm64", "loongarch", "mips", "powerpc", "riscv", "s390")

_KNOWN = {architecture.name: architecture for architecture in (X86_64,)}


def of_host() -> Architecture | None:
    """Return the architecture of this machine; None when the engine does not know it."""
    return _KNOWN.get(os.uname().machine)


#: the guests' architecture, which is this machine's; on an unknown machine only results of other runs can be read
CURRENT = of_host() or X86_64
