"""Several guests of one kernel at once: what each of them runs, and which kernel gets another when there is room.

A kernel's own guests, one after another, are its first worker: they run its tests in order. When the machine has room
for a guest that no kernel waits for, the kernel with the most left gets one more worker, whose guest runs one piece,
the longest that nobody has begun. A piece is never divided (`kernel_matrix.plan.sharding`), so a guest still runs every
file's tests in their order, and what spoils a guest (last in its kernel's list) spoils none that has anything else to
run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

#: between a kernel's name and the number of a worker that is not its first, in names of files
MARK = "~"
#: seconds (as recorded: `kernel_matrix.plan.sharding.weigh`) that a piece takes which is worth a guest; one needs about
#: one
WORTH = 5.0

#: of a kernel's time; the multiples of the golden ratio, modulo 1, are far from each other however many there are
_FAR = (math.sqrt(5) - 1) / 2


class WorkerId(NamedTuple):
    """Guests of one kernel, one after another."""

    kernel: str
    #: from 1; the first one is the kernel's own
    number: int = 1

    def __str__(self) -> str:
        return self.kernel if self.number == 1 else f"{self.kernel}{MARK}{self.number}"


class Piece(NamedTuple):
    """What one guest runs of a kernel's tests: a file, or a folder that is not divided."""

    kernel: str
    path: str


def longest(left: Mapping[Piece, float]) -> Piece | None:
    """Choose what another guest shall run: of the kernel with the most left the longest; None: nothing is worth one.

    ``left``: what nobody has begun, in seconds; the first named wins a tie.
    """
    worth = {piece: seconds for piece, seconds in left.items() if seconds >= WORTH}
    if not worth:
        return None
    totals: dict[str, float] = {}
    for piece, seconds in left.items():
        totals[piece.kernel] = totals.get(piece.kernel, 0.0) + seconds
    return max(worth, key=lambda piece: (totals[piece.kernel], worth[piece]))


def beginnings(takes: Mapping[Piece, float]) -> dict[str, str]:
    """Say with which of its pieces each kernel begins: at points of their time that lie far from each other.

    ``takes``: the seconds of all pieces, a kernel's in the order in which it runs them. Kernels are alike: some tests
    compute, others wait for the kernel (for grace periods), and in the same order all would wait at once.
    """
    own: dict[str, dict[str, float]] = {}
    for piece, seconds in takes.items():
        own.setdefault(piece.kernel, {})[piece.path] = seconds
    totals = {kernel: math.fsum(pieces.values()) for kernel, pieces in own.items()}
    found = {}
    for number, kernel in enumerate(sorted(totals, key=lambda kernel: -totals[kernel])):
        point = totals[kernel] * (number * _FAR % 1)
        before = itertools.accumulate(own[kernel].values(), initial=0.0)
        found[kernel] = [path for path, behind in zip(own[kernel], before, strict=False) if behind <= point][-1]
    return found


def free(kernel: str, taken: Collection[WorkerId]) -> WorkerId:
    """Return that kernel's first worker, not its own, that is free."""
    return next(worker for number in itertools.count(2) if (worker := WorkerId(kernel, number)) not in taken)
