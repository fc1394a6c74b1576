"""What differs between architectures, a module for each: adding one touches this room. Standard library only.

Not here: what all of Linux's architectures with the ioctl numbers of asm-generic have in common (the agent's ioctls).
"""

from __future__ import annotations

import os

from kernel_matrix.arch.architecture import Architecture
from kernel_matrix.arch.x86_64 import X86_64

__all__ = ["CURRENT", "Architecture", "of_host"]

_KNOWN = {each.name: each for each in (X86_64,)}


def of_host() -> Architecture | None:
    """Return this machine's; None for one that the engine does not know."""
    return _KNOWN.get(os.uname().machine)


#: the guests': this machine's, as virtme-ng runs them; a machine that is not known reads the results of others' runs
CURRENT = of_host() or X86_64
