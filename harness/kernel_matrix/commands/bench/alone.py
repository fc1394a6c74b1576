"""Load the guest's plugin into a pytest without a controller, in a VM that another tool has booted.

Use ``-p kernel_matrix.commands.bench.alone``. The environment variable HARNESS_FACTS has what the controller would send
to its worker, `GuestFacts` as JSON.
"""

from __future__ import annotations

import os

import pytest

from kernel_matrix.config import options
from kernel_matrix.guest.pytest import plugin
from kernel_matrix.shared.channel import worker_input


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of a run of the matrix, which the guest's plugin reads."""
    options.add_all(parser.getgroup("kernel matrix").addoption)


def pytest_configure(config: pytest.Config) -> None:
    """Register the guest's plugin."""
    plugin.register(config, worker_input.decode_facts(os.environ["HARNESS_FACTS"]))
