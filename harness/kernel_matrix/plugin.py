"""The pytest plugin: it adds the options, and starts the host's or the guest's half.

Once installed, every pytest loads it. Without ``--matrix`` it only refuses to run a project's kernel tests on the host.
So it imports neither half before it knows which one is needed.
"""

from __future__ import annotations

from typing import Any

import pytest

from kernel_matrix.config import options
from kernel_matrix.shared.errors import HarnessError, of_system

MATRIX = "--matrix"


def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    """Add the matrix's options to a run of the matrix only: their names may be used by other plugins."""
    if MATRIX in args:
        options.add_all(parser.getgroup("kernel matrix").addoption)
    else:
        from kernel_matrix.shared import pytest_internals

        pytest_internals.hide_from_header(early_config, __name__)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that starts a run of the matrix."""
    options.add_matrix(parser.getgroup("kernel matrix").addoption)


def pytest_configure(config: pytest.Config) -> None:
    """Start the controller of the matrix or a guest's worker, or do nothing."""
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is not None:
        _configure_worker(config, worker)
    elif config.option.matrix and not config.option.help:
        from kernel_matrix.session import starting

        try:
            (starting.list_only if config.option.collectonly else starting.start)(config)
        except BrokenPipeError:
            # nobody reads the output: the command's affair, which may end quietly
            raise
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

    try:
        configured = project.load(config.rootpath)
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from error
    if configured is not None and any(configured.is_test(item.nodeid.partition("::")[0]) for item in items):
        raise pytest.UsageError("these tests run inside guests: use `kernel-matrix matrix`, or pytest with --matrix")


def _configure_worker(config: pytest.Config, worker: dict[str, Any]) -> None:
    from kernel_matrix.shared.channel import worker_input

    if worker_input.WORKER_KEY not in worker:
        return
    from kernel_matrix.guest.pytest import plugin

    work, channel = worker_input.unpack(worker[worker_input.WORKER_KEY])
    # nobody reads its output, and an emulated guest takes milliseconds for each report; it would be registered later
    config.pluginmanager.set_blocked("terminalreporter")
    if work.gone:
        config.pluginmanager.register(plugin.GonePlugin())
        return
    if work.keep:
        from kernel_matrix.guest.pytest.keeping import KeepPlugin

        config.pluginmanager.register(KeepPlugin(channel.send))
    if work.command:
        from kernel_matrix.guest.pytest.items.command import CommandPlugin

        config.pluginmanager.register(CommandPlugin(work.facts, list(work.command), work.timeout, channel.send))
    plugin.register(config, work.facts, work.arguments, work.begins, channel.send if channel is not None else None)
