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

import pytest

from kernel_matrix.guest.bpf.step_error import Stage, StepError, errno_name
from kernel_matrix.guest.pytest.marks import REFUSED_PROPERTY, check_refusal


@dataclass(slots=True)
class Found:
    """The refusal, once it has come."""

    #: libbpf's lines and the verifier's log, where the step has one
    log: str = ""
    error: StepError | None = None


class Refused:
    """Callable as a context manager around the one step that must be refused."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    @contextmanager
    def __call__(self, errno: int, *, stage: Stage) -> Generator[Found]:
        """Demand a StepError of exactly this stage and errno.

        An OSError that is not of a step fails the test: nobody asked the kernel. Any other exception goes through; no
        exception fails the test.
        """
        found = Found()
        try:
            yield found
        except OSError as error:
            refusal = check_refusal(error, errno, stage)
            if isinstance(refusal, str):
                wanted = f"{stage} refused with {errno_name(errno)}"
                raise pytest.fail.Exception(f"expected {wanted}, found {refusal}", pytrace=False) from error
            found.log, found.error = refusal.log, refusal
        else:
            pytest.fail(f"expected {stage} refused with {errno_name(errno)}, but it succeeded")
        if REFUSED_PROPERTY not in self._item.user_properties:
            self._item.user_properties.append(REFUSED_PROPERTY)


@pytest.fixture
def refused(request: pytest.FixtureRequest) -> Refused:
    """Give a context manager that checks one refusal and marks the test's outcome as refused."""
    item = request.node
    assert isinstance(item, pytest.Item)
    return Refused(item)
