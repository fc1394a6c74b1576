"""A test that fails while it has something in the kernel, and two that frame it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kernel_matrix.guest.system.netns import Veth, veth


@pytest.fixture
def pair() -> Iterator[Veth]:
    """Return a pair of interfaces."""
    with veth() as made:
        yield made


def test_before() -> None:
    """Passes."""


def test_fails(pair: Veth) -> None:
    """Fails with a pair of interfaces."""
    assert pair.near.name == "far"


def test_after() -> None:
    """Is not run."""
