"""A test leaves a map in the kernel; those behind it run in another guest."""

from __future__ import annotations

from kernel_matrix.guest.bpf import steps

_LEFT: list[int] = []


def test_leaves_a_map() -> None:
    """Passes, but for what it leaves."""
    _LEFT.append(steps.create_map(steps.MapSpec("array", key=4, value=8, entries=1)))


def test_is_in_another_guest() -> None:
    """Passes where no other test of this file has run."""
    assert not _LEFT
    _LEFT.append(0)


def test_is_in_the_same_guest_as_the_one_before() -> None:
    """Passes where one has."""
    assert _LEFT == [0]
