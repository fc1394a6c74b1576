"""The kernel complains: in each phase of a test, and between two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


def complain() -> None:
    """Leave in the kernel's log what a WARN begins with."""
    Path("/dev/kmsg").write_text("<4>------------[ cut here ]------------\n")


@pytest.fixture(scope="module")
def complains_for_a_module() -> None:
    """Complains once."""
    complain()


@pytest.fixture
def complains_afterwards() -> Iterator[None]:
    """Complains in the teardown."""
    yield
    complain()


def test_in_the_set_up(complains_for_a_module: None) -> None:
    """Passes by itself."""


def test_in_the_call() -> None:
    """Passes by itself."""
    complain()


def test_in_the_teardown(complains_afterwards: None) -> None:
    """Passes by itself."""


def test_of_nothing() -> None:
    """Passes: what came before is not its."""


def test_of_records_that_are_lost() -> None:
    """Passes by itself; the kernel's log holds a fraction of that (CONFIG_LOG_BUF_SHIFT)."""
    with Path("/dev/kmsg").open("w", buffering=1) as log:
        log.writelines(f"<7>{'x' * 900}\n" for _ in range(3000))
