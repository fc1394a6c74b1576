"""The guest's plugin in a pytest without a controller, in a VM that others booted.

It is named by ``-p kernel_matrix.guest.pytest.alone``. What the controller would tell its worker is in HARNESS_FACTS:
`GuestFacts` as JSON.
"""

from __future__ import annotations

import os

import pytest

from kernel_matrix.guest.pytest import plugin
from kernel_matrix.shared import worker_input


def pytest_configure(config: pytest.Config) -> None:
    """Be a guest's pytest."""
    plugin.register(config, worker_input.decode_facts(os.environ["HARNESS_FACTS"]))
