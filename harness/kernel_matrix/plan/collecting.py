"""Collect on the host as guests do: to see which guests have a test, and for ``--collect-only``.

As a plugin of pytest it gets what it needs from `kernel_matrix.plan.selection`, by the environment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from kernel_matrix.guest.pytest import marks
from kernel_matrix.guest.pytest.items import objects, own_commands
from kernel_matrix.plan.guest_list import ListedGuest
from kernel_matrix.plan.selection import COMMANDS, LOADERS, NAMES, OBJECTS, SELECTED
from kernel_matrix.shared.bpf.object_table import ObjectTable
from kernel_matrix.shared.outcomes.features import VARIANT
from kernel_matrix.shared.project import Command


class AsGuests:
    """Makes of each test the tests of these guests, with these loaders."""

    #: parameters have the same ids as in the guests
    pytest_make_parametrize_id = staticmethod(marks.pytest_make_parametrize_id)

    def __init__(self, names: Sequence[str], loaders: Sequence[str]) -> None:
        self._names = names
        self._loaders = loaders

    @pytest.hookimpl(tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make guest and loader the first parameters of every test, so that -k and node ids match them."""
        metafunc.fixturenames.insert(0, "kernel")
        metafunc.parametrize("kernel", self._names, scope="session")
        marks.parametrize_loader(metafunc, self._loaders)


def register(
    config: pytest.Config,
    names: Sequence[str],
    loaders: Sequence[str],
    table: ObjectTable,
    commands: Sequence[Command],
) -> None:
    """Register what collects as these guests do: tests, objects and commands. Marks have no effect."""
    marks.register(config)
    config.pluginmanager.register(AsGuests(names, loaders), "matrix-guests")
    config.stash[objects.KERNELS] = tuple(names)
    config.stash[objects.TABLE] = table
    config.pluginmanager.register(objects, "matrix-objects")
    config.stash[own_commands.COMMANDS] = tuple(commands)
    config.pluginmanager.register(own_commands, "matrix-commands")


def pytest_configure(config: pytest.Config) -> None:
    """Read the environment."""
    names, loaders, table, commands = (json.loads(os.environ[name]) for name in (NAMES, LOADERS, OBJECTS, COMMANDS))
    register(config, names, loaders, ObjectTable.of_json(table), [Command.of_json(entry) for entry in commands])


def pytest_collection_finish(session: pytest.Session) -> None:
    """Write the guests whose variant a selected test asks for."""
    guests = set()
    for item in session.items:
        if not hasattr(item, "callspec"):
            # of an object or a command, which run with no variant
            continue
        guest = item.callspec.params["kernel"]
        if guest.partition(VARIANT)[2] in marks.variants_of(item):
            guests.add(guest)
    Path(os.environ[SELECTED]).write_text(json.dumps(sorted(guests)))


class OnlyTheirs:
    """Deselects what these guests do not run: tests of other variants, loaders and files."""

    def __init__(self, guests: Mapping[str, ListedGuest], loaders: Sequence[str]) -> None:
        self._guests = guests
        self._loaders = loaders

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Deselect them."""
        theirs = [item for item in items if self._runs(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(theirs)])
        items[:] = theirs

    def _runs(self, item: pytest.Item) -> bool:
        parameters = getattr(getattr(item, "callspec", None), "params", None)
        if parameters is None:
            # of an object or a command, which run with no variant
            return True
        guest = self._guests[parameters["kernel"]]
        return (
            guest.name.partition(VARIANT)[2] in (marks.variants_of(item) or {""})
            and marks.loader_of(item) in {None, *self._loaders}
            and (not guest.arguments or any(item.nodeid.startswith(file) for file in guest.arguments))
        )
