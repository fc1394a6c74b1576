"""Check a refusal: which stage refused, with which errno; and report the test as refused.

`refused` is a fixture for tests whose purpose is a refusal, on every kernel they run on:

    def test_a_second_program_is_refused(refused: Refused, ...) -> None:
        with refused(errno.EBUSY, stage="attach"):
            attach(...)

A refusal that differs between kernels is two marks away: `requires` or `refused_without`.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import pytest

from harness.guest.marks import REFUSED_PROPERTY, errno_name

#: the steps that have a refusal of their own
Stage = Literal[
    "open", "token", "map_create", "load", "attach", "detach", "query", "lookup", "pin", "update", "read", "test_run"
]


@dataclass(slots=True)
class Found:
    """What a refusal said beside its errno, once it has come."""

    #: libbpf's lines and the verifier's log, where the step has one
    log: str = ""
    error: OSError | None = None


class Refused:
    """Callable as a context manager around the one step that must be refused."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    @contextmanager
    def __call__(self, errno: int, *, stage: Stage) -> Generator[Found]:
        """Demand an OSError of exactly this errno, whose `stage`, when it names one, is this stage.

        Any other exception goes through; no exception fails the test.
        """
        wanted = f"{stage} refused with {errno_name(errno)}"
        found = Found()
        try:
            yield found
        except OSError as error:
            found_stage = getattr(error, "stage", stage)
            found.log, found.error = getattr(error, "log", ""), error
            if (error.errno, found_stage) != (errno, stage):
                other = f"{found_stage} refused with {errno_name(error.errno)}"
                raise pytest.fail.Exception(f"expected {wanted}, found {other}: {error}", pytrace=False) from error
        else:
            pytest.fail(f"expected {wanted}, but it succeeded")
        if REFUSED_PROPERTY not in self._item.user_properties:
            self._item.user_properties.append(REFUSED_PROPERTY)


@pytest.fixture
def refused(request: pytest.FixtureRequest) -> Refused:
    """Give a context manager that checks one refusal and marks the test's outcome as refused."""
    item = request.node
    assert isinstance(item, pytest.Item)
    return Refused(item)
