"""What the capability suites share: the table of the running kernel, measured once, in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest

from harness.capability_table import Table
from harness.features import GuestFacts
from harness.guest import capability_table
from harness.guest.capability_probes import Given
from harness.guest.capability_table import Part
from harness.guest.marks import GUEST_FACTS
from harness.guest.refusal import refused

__all__ = ["refused"]

#: a setting (``name=value``, empty for the defaults) -> what came of everything under it
Measured = Callable[[str], Part]


@pytest.fixture(scope="session")
def facts(request: pytest.FixtureRequest) -> GuestFacts:
    """Return what the manifest says about this kernel."""
    return request.config.stash[GUEST_FACTS]


@pytest.fixture
def given() -> Iterator[Given]:
    """Give what the probes inherit."""
    with capability_table.given() as things:
        yield things


@pytest.fixture(scope="session")
def measured(facts: GuestFacts) -> Measured:
    """Give a function that measures under a setting, once: an emulated guest takes up to twenty seconds for it."""
    return cache(lambda assignment: capability_table.measure(facts.features, assignment))


@pytest.fixture(scope="session")
def parts(measured: Measured) -> dict[str, Part]:
    """Return what came of everything under every setting."""
    return {assignment: measured(assignment) for assignment in ("", *capability_table.SETTINGS)}


@pytest.fixture(scope="session")
def table(parts: dict[str, Part]) -> Table:
    """Return the table of this kernel."""
    return capability_table.joined(parts)
