"""The pytest plugin: options, and which half takes part, the host's or the guest's.

Installed, it is loaded by every pytest, and does nothing without ``--matrix`` but refuse to run a project's kernel
tests on the host. So it imports neither half before it knows where it is.
"""

from __future__ import annotations

from typing import Any

import pytest

from kernel_matrix.config import options
from kernel_matrix.shared.errors import HarnessError, of_system

MATRIX = "--matrix"


def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    """Add the matrix's options to a run of the matrix: elsewhere their names are the project's own."""
    if MATRIX in args:
        options.add_all(parser.getgroup("kernel matrix").addoption)
    else:
        from kernel_matrix.shared import pytest_internals

        pytest_internals.hide_from_header(early_config, __name__)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the one option that asks for a run of the matrix."""
    options.add_matrix(parser.getgroup("kernel matrix").addoption)


def pytest_configure(config: pytest.Config) -> None:
    """Become the controller of the matrix, a guest's worker, or nothing."""
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is not None:
        _configure_worker(config, worker)
    elif config.option.matrix and not (config.option.collectonly or config.option.help):
        from kernel_matrix.session import starting

        try:
            starting.start(config)
        except (HarnessError, OSError) as error:
            failure = of_system(error) if isinstance(error, OSError) else error
            pytest.exit(str(failure), returncode=failure.exit_status)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse to run a kernel test on the host: it loads programs into the running kernel."""
    if hasattr(config, "workerinput") or config.option.collectonly or config.pluginmanager.hasplugin("matrix-guest"):
        return
    if not any((config.rootpath / name).is_file() for name in ("kernel-matrix.toml", "pyproject.toml")):
        return
    from kernel_matrix.config import project

    found = project.load(config.rootpath)
    if found is not None and any(found.is_test(item.nodeid.partition("::")[0]) for item in items):
        raise pytest.UsageError("these tests run inside guests: use `kernel-matrix matrix`, or pytest with --matrix")


def _configure_worker(config: pytest.Config, worker: dict[str, Any]) -> None:
    from kernel_matrix.shared import worker_input

    if worker_input.WORKER_KEY not in worker:
        return
    from kernel_matrix.guest.pytest import plugin

    given, channel = worker_input.unpack(worker[worker_input.WORKER_KEY])
    # what it writes nobody reads, and an emulated guest takes milliseconds for each report; it is registered after this
    config.pluginmanager.set_blocked("terminalreporter")
    if given.gone:
        config.pluginmanager.register(plugin.GonePlugin())
        return
    if given.keep:
        from kernel_matrix.guest.pytest.keeping import KeepPlugin

        config.pluginmanager.register(KeepPlugin(channel.send))
    if given.command:
        from kernel_matrix.guest.pytest.command import CommandPlugin

        config.pluginmanager.register(CommandPlugin(given.facts, list(given.command), given.timeout, channel.send))
    plugin.register(config, given.facts, given.arguments, given.begins)
