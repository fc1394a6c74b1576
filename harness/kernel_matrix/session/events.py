"""What happens to guests, for whoever wants to know: one hook of this session's plugins, and its events."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from kernel_matrix.shared.division import WorkerId
from kernel_matrix.shared.ending import Ending
from kernel_matrix.shared.expect import Decision


@dataclass(frozen=True, slots=True)
class OutsideTest:
    """A guest has done something outside every test that makes a cell."""

    kernel: str
    #: the cell's test, such as ``boot``
    test: str
    decision: Decision


@dataclass(frozen=True, slots=True)
class GuestDied:
    """A worker's guest has ended before it was let go; pytest's report of the test in it comes afterwards."""

    worker: WorkerId
    ending: Ending


@dataclass(frozen=True, slots=True)
class KernelLost:
    """The machine of a kernel's guests is gone: what it has not reported does not come any more."""

    kernel: str
    why: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What -k or -m has left out in a guest."""

    kernel: str
    nodeids: tuple[str, ...]


GuestEvent = OutsideTest | GuestDied | KernelLost | LeftOut


class Specs:
    """The hook, for pluggy."""

    @pytest.hookspec
    def pytest_matrix_guest(self, event: GuestEvent) -> None:
        """Take what has happened to a guest."""
