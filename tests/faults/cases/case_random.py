"""Tests that say what copies of one guest would share."""

from __future__ import annotations

import os
import random
import time

import pytest

from kernel_matrix.guest.pytest.fixtures import Record


@pytest.mark.parametrize("number", range(3))
def test_draws(number: int, record: Record) -> None:
    """Random numbers of the kernel and of Python, and the time."""
    record(f"drawn-{number}", [os.urandom(16).hex(), random.random(), time.time()])
