"""The guest's plugin in a pytest without a controller: ``-p harness.guest.pytest.alone``, in a VM that others booted.

What the controller would tell its worker is in HARNESS_FACTS, as JSON: ``{"kernel": name, "kernels": {name: [feature,
...]}, "all_features": [...]}``.
"""

from __future__ import annotations

import json
import os

import pytest

from harness.guest.pytest import plugin
from harness.shared.features import GuestFacts


def pytest_configure(config: pytest.Config) -> None:
    """Be a guest's pytest."""
    told = json.loads(os.environ["HARNESS_FACTS"])
    kernels = {name: frozenset(features) for name, features in told["kernels"].items()}
    facts = GuestFacts(told["kernel"], kernels[told["kernel"]], frozenset(told["all_features"]), kernels)
    plugin.register(config, facts)
