"""Fixtures of all tests of the harness."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from kernel_matrix.shared.hints import NOX_VARIABLE

# how long an example takes depends on what else the machine does, so it is no reason to fail
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

#: a separate project (tests/faults/test_extending.py)
collect_ignore = ["extending/one_program", "faults/mutants"]


@pytest.fixture(autouse=True, scope="session")
def commands_are_the_engines() -> Iterator[None]:
    """Let messages name the engine's commands, even if nox has started the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(NOX_VARIABLE, raising=False)
        yield
