"""Skips and expected failures that no mark of the matrix made."""

from __future__ import annotations

import pytest


@pytest.fixture
def skips() -> None:
    """Skip in the set-up."""
    pytest.skip("in a fixture")


def test_in_a_fixture(skips: None) -> None:
    """Never runs."""


def test_in_the_call() -> None:
    """Skips itself."""
    pytest.skip("in the call")


@pytest.mark.skipif(condition=True, reason="by a mark")
def test_by_a_mark() -> None:
    """Never runs."""


@pytest.mark.xfail(reason="as expected", strict=True)
def test_expected_to_fail() -> None:
    """Fails."""
    raise AssertionError


@pytest.mark.parametrize("value", [])
def test_of_nothing(value: int) -> None:
    """Never runs."""


def test_passes() -> None:
    """Passes."""
