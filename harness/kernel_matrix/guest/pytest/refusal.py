"""Check the stage and errno of a refusal, and report the test as refused.

`refused` is a fixture for tests whose purpose is a refusal, on every kernel they run on:

    def test_a_second_program_is_refused(refused: Refused, ...) -> None:
        with refused(errno.EBUSY, stage="attach"):
            attach(...)

For a refusal on some kernels only, use the marks `requires` or `refused_without`.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from kernel_matrix.guest.bpf.step_error import Stage, StepError, errno_name
from kernel_matrix.guest.pytest.marks import REFUSED_PROPERTY, check_refusal


@dataclass(slots=True)
class Refusal:
    """The refusal, filled in when it has occurred."""

    #: libbpf's messages and the verifier's log; empty for a step without them
    log: str = ""
    error: StepError | None = None


class Refused:
    """A context manager, when called, around the one step that must be refused."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    @contextmanager
    def __call__(self, errno: int, *, stage: Stage) -> Generator[Refusal]:
        """Demand a StepError of exactly this stage and errno.

        An OSError that is not a StepError fails the test, because it is no answer to a step. Any other exception
        propagates; no exception fails the test.
        """
        refusal = Refusal()
        try:
            yield refusal
        except OSError as error:
            checked = check_refusal(error, errno, stage)
            if isinstance(checked, str):
                expected = f"{stage} refused with {errno_name(errno)}"
                raise pytest.fail.Exception(f"expected {expected}, found {checked}", pytrace=False) from error
            refusal.log, refusal.error = checked.log, checked
        else:
            pytest.fail(f"expected {stage} refused with {errno_name(errno)}, but it succeeded")
        if REFUSED_PROPERTY not in self._item.user_properties:
            self._item.user_properties.append(REFUSED_PROPERTY)


@pytest.fixture
def refused(request: pytest.FixtureRequest) -> Refused:
    """Return a context manager that checks one refusal and marks the test's outcome as refused."""
    item = request.node
    assert isinstance(item, pytest.Item)
    return Refused(item)
