"""What the tests of load refusals share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.pytest.refusal import refused

__all__ = ["refused"]


@pytest.fixture
def array() -> Iterator[int]:
    """Make an array with one value of 8 bytes, and give its file descriptor."""
    fd = steps.create_map(steps.MapSpec("array", key=4, value=8, entries=1))
    yield fd
    os.close(fd)
