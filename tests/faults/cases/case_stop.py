"""A failure in front of tests that -x leaves out."""

from __future__ import annotations

import pytest


def test_fails() -> None:
    """Fails."""
    pytest.fail("on purpose")


@pytest.mark.parametrize("number", range(5))
def test_after(number: int) -> None:
    """Passes."""
    assert number >= 0
