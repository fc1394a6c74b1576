"""Options and fixtures of all suites."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from suites.fuzzing import Fuzz


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of generated tests."""
    group = parser.getgroup("generated tests")
    group.addoption(
        "--fuzz", type=int, default=1, metavar="TIMES", help="generate so many times as much as usual (default: 1)"
    )
    group.addoption("--fuzz-seed", type=int, default=0, metavar="N", help="generate from this seed (default: 0)")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a number of times that generates nothing."""
    if config.option.fuzz < 1:
        raise pytest.UsageError(f"--fuzz {config.option.fuzz}: must be at least 1")


def pytest_collection_modifyitems() -> None:
    """Import Hypothesis where tests are collected: in guests, also in those that are saved, and not on the host."""
    from suites import fuzzing  # noqa: F401


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> Fuzz:
    """Return what generates values and checks them."""
    from suites.fuzzing import Fuzz

    return Fuzz(request.config.option.fuzz, request.config.option.fuzz_seed)
