"""The pytest plugin: options, and which half takes part, the host's or the guest's.

Loaded by the root conftest.py on both sides, so it imports neither half before it knows where it is.
"""

from __future__ import annotations

from typing import Any

import pytest

from harness.config import options
from harness.shared.errors import HarnessError, of_system
from harness.shared.features import GuestFacts
from harness.shared.protocol import ARGUMENTS, BEGINS, COMMAND, KEEP, OUTPUT, TIMEOUT, WORKER_KEY


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the matrix's options."""
    options.add_all(parser.getgroup("kernel matrix").addoption)


def pytest_configure(config: pytest.Config) -> None:
    """Become the controller of the matrix, a guest's worker, or nothing."""
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is not None and WORKER_KEY in worker:
        _configure_worker(config, worker[WORKER_KEY])
    elif config.option.matrix and not (config.option.collectonly or config.option.help):
        from harness.session import starting

        try:
            starting.start(config)
        except (HarnessError, OSError) as error:
            failure = of_system(error) if isinstance(error, OSError) else error
            pytest.exit(str(failure), returncode=failure.exit_status)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse to run a suite on the host: it loads programs into the running kernel."""
    if hasattr(config, "workerinput") or config.option.collectonly or config.pluginmanager.hasplugin("harness-guest"):
        return
    if any(item.nodeid.startswith("suites/") for item in items):
        raise pytest.UsageError("the suites run inside guests: use `nox -s kernel-matrix`")


def _configure_worker(config: pytest.Config, told: dict[str, Any]) -> None:
    from harness.guest.pytest import plugin

    if told["gone"]:
        config.pluginmanager.register(plugin.GonePlugin())
        return
    facts = GuestFacts(
        kernel=told["kernel"],
        features=frozenset(told["features"]),
        all_features=frozenset(told["all_features"]),
        kernels={name: frozenset(features) for name, features in told["kernels"].items()},
    )
    if told[KEEP]:
        from harness.guest.pytest.keeping import KeepPlugin

        config.pluginmanager.register(KeepPlugin(told[OUTPUT].send))
    if told[COMMAND]:
        from harness.guest.pytest.command import CommandPlugin

        config.pluginmanager.register(CommandPlugin(facts, told[COMMAND], told[TIMEOUT], told[OUTPUT].send))
    plugin.register(config, facts, tuple(told[ARGUMENTS]), told[BEGINS])
