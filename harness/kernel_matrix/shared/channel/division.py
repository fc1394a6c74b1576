"""Divide a kernel's tests among several guests: which kernel gets another guest, and what it runs.

A kernel's first worker is its own guest, or successive guests when one dies; it runs the kernel's tests in order. When
the machine has room for a guest that no kernel waits for, the kernel with the most remaining work gets one more worker.
Its guest runs one piece, the longest that has not begun. A piece is never divided (`kernel_matrix.plan.sharding`), so a
guest still runs the tests of a file in their order. A test that spoils its guest is last in its kernel's list, so it
spoils only a guest that has nothing else to run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

#: separates a kernel's name from the number of a further worker in file names
MARK = "~"
#: a piece of at least this duration is worth a guest, which costs about one second (recorded seconds:
#: `kernel_matrix.plan.sharding.weigh`)
WORTH = 5.0

#: step between start points, as a part of a kernel's time: multiples of the golden ratio modulo 1 are always far apart
_FAR = (math.sqrt(5) - 1) / 2


class WorkerId(NamedTuple):
    """A worker: successive guests of one kernel."""

    kernel: str
    #: from 1, the kernel's own worker
    number: int = 1

    def __str__(self) -> str:
        return self.kernel if self.number == 1 else f"{self.kernel}{MARK}{self.number}"


class Piece(NamedTuple):
    """A part of a kernel's tests that one guest runs: a file, or a folder that is not divided."""

    kernel: str
    path: str


def longest(left: Mapping[Piece, float]) -> Piece | None:
    """Return the longest piece of the kernel with the most remaining work; None: no piece is worth a guest.

    ``left``: the duration in seconds of each piece that has not begun; the first one wins a tie.
    """
    worth = {piece: seconds for piece, seconds in left.items() if seconds >= WORTH}
    if not worth:
        return None
    totals: dict[str, float] = {}
    for piece, seconds in left.items():
        totals[piece.kernel] = totals.get(piece.kernel, 0.0) + seconds
    return max(worth, key=lambda piece: (totals[piece.kernel], worth[piece]))


def first_pieces(takes: Mapping[Piece, float]) -> dict[str, str]:
    """Return the piece with which each kernel begins, so that the kernels start at distant points of the same work.

    ``takes``: the duration in seconds of all pieces, a kernel's in the order in which it runs them. On every kernel,
    some tests compute and others wait for the kernel (for grace periods). In the same order all guests would wait at
    the same time.
    """
    own: dict[str, dict[str, float]] = {}
    for piece, seconds in takes.items():
        own.setdefault(piece.kernel, {})[piece.path] = seconds
    totals = {kernel: math.fsum(pieces.values()) for kernel, pieces in own.items()}
    first = {}
    for number, kernel in enumerate(sorted(totals, key=lambda kernel: -totals[kernel])):
        point = totals[kernel] * (number * _FAR % 1)
        before = itertools.accumulate(own[kernel].values(), initial=0.0)
        first[kernel] = [path for path, behind in zip(own[kernel], before, strict=False) if behind <= point][-1]
    return first


def free(kernel: str, taken: Collection[WorkerId]) -> WorkerId:
    """Return a kernel's first further worker that is not in ``taken``."""
    return next(worker for number in itertools.count(2) if (worker := WorkerId(kernel, number)) not in taken)
