"""Events of guests: one hook of this session's plugins, and what it is called with."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from kernel_matrix.shared.channel.division import WorkerId
from kernel_matrix.shared.outcomes.expect import Decision
from kernel_matrix.vm.ending import Ending


@dataclass(frozen=True, slots=True)
class OutsideTest:
    """Something happened in a guest outside every test, and makes a cell."""

    kernel: str
    #: the cell's test, such as ``boot``
    test: str
    decision: Decision


@dataclass(frozen=True, slots=True)
class GuestDied:
    """A worker's guest ended too early; pytest's report of the test that ran in it follows."""

    worker: WorkerId
    ending: Ending


@dataclass(frozen=True, slots=True)
class KernelLost:
    """The machine of a kernel's guests is gone: there will be no more reports from it."""

    kernel: str
    why: str


@dataclass(frozen=True, slots=True)
class Deselected:
    """The tests that -k or -m deselected in a guest."""

    kernel: str
    nodeids: tuple[str, ...]


GuestEvent = OutsideTest | GuestDied | KernelLost | Deselected


class Specs:
    """The hook, for pluggy."""

    @pytest.hookspec
    def pytest_matrix_guest(self, event: GuestEvent) -> None:
        """Handle an event of a guest."""
