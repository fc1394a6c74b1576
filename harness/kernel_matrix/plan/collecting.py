"""Pytest plugin for `kernel_matrix.plan.selection`: collects as guests do, and writes which guests have a test."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kernel_matrix.guest.pytest import marks
from kernel_matrix.guest.pytest.items import objects, own_commands
from kernel_matrix.plan.selection import COMMANDS, LOADERS, NAMES, OBJECTS, SELECTED
from kernel_matrix.shared.bpf.object_table import ObjectTable
from kernel_matrix.shared.outcomes.features import VARIANT
from kernel_matrix.shared.project import Command

#: parameters have the same ids as in the guests
pytest_make_parametrize_id = marks.pytest_make_parametrize_id


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks; they have no effect here."""
    marks.register(config)
    config.stash[objects.KERNELS] = tuple(json.loads(os.environ[NAMES]))
    config.stash[objects.TABLE] = ObjectTable.of_json(json.loads(os.environ[OBJECTS]))
    config.pluginmanager.register(objects, "matrix-objects")
    config.stash[own_commands.COMMANDS] = tuple(Command.of_json(entry) for entry in json.loads(os.environ[COMMANDS]))
    config.pluginmanager.register(own_commands, "matrix-commands")


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make guest and loader the first parameters of every test, so that -k and node ids match them."""
    metafunc.fixturenames.insert(0, "kernel")
    metafunc.parametrize("kernel", json.loads(os.environ[NAMES]), scope="session")
    marks.parametrize_loader(metafunc, json.loads(os.environ[LOADERS]))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Write the guests whose variant a selected test asks for."""
    guests = set()
    for item in session.items:
        if not hasattr(item, "callspec"):
            # of an object or a command, which run with no variant
            continue
        guest = item.callspec.params["kernel"]
        variants = {name for mark in item.iter_markers("boots_with") for name in mark.args}
        if guest.partition(VARIANT)[2] in variants:
            guests.add(guest)
    Path(os.environ[SELECTED]).write_text(json.dumps(sorted(guests)))
