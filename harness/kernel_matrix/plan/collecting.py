"""Plugin of the pytest of `kernel_matrix.plan.selection`: collects as guests would, and says which have a test."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kernel_matrix.guest.pytest import marks
from kernel_matrix.plan.selection import FOUND, NAMES
from kernel_matrix.shared.features import VARIANT

#: parameters are named as in the guests
pytest_make_parametrize_id = marks.pytest_make_parametrize_id


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks; they decide nothing here."""
    marks.register(config)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make every guest the first parameter of every test, so that -k and node ids find it."""
    metafunc.fixturenames.insert(0, "kernel")
    metafunc.parametrize("kernel", json.loads(os.environ[NAMES]), scope="session")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Write down the guests whose variant one of the selected tests asks for."""
    found = set()
    for item in session.items:
        guest = item.callspec.params["kernel"]  # type: ignore[attr-defined]
        wanted = {name for mark in item.iter_markers("boots_with") for name in mark.args}
        if guest.partition(VARIANT)[2] in wanted:
            found.add(guest)
    Path(os.environ[FOUND]).write_text(json.dumps(sorted(found)))
