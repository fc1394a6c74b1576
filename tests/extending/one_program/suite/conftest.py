"""Every object is loaded by the logging loader."""

from __future__ import annotations

import pytest
from logging_loader import LoggingLoader

from kernel_matrix.guest.bpf.loaders import Loader
from kernel_matrix.guest.bpf.loaders.libbpf import Libbpf


@pytest.fixture(scope="session")
def loader() -> Loader:
    """Replace the engine's."""
    made: Loader = LoggingLoader(Libbpf())
    return made
