"""The pytest plugin: options, and which half takes part, the host's or the guest's.

Loaded by the root conftest.py on both sides, so it imports neither half before it knows where it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError, of_system
from harness.features import GuestFacts
from harness.workers import ARGUMENTS, COMMAND, KEEP, OUTPUT, TIMEOUT, WORKER_KEY


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the matrix's options."""
    add_options(parser.getgroup("kernel matrix").addoption)


def add_options(add: Callable[..., object]) -> None:
    """Add them by that function: pytest's, or argparse's for a help that begins with them."""
    add("--matrix", action="store_true", help="run the tests inside the guests of the kernel matrix, not here")
    add(
        "--kernel",
        action="append",
        default=[],
        metavar="NAME",
        help="a kernel of vmimages/kernels.toml, 'core' (the default) or 'full'; may be repeated",
    )
    add(
        "--shard",
        default=None,
        metavar="I/N",
        help="run only part I of N of the test files on the kernels; `merge` joins the parts' results",
    )
    add(
        "--guests",
        type=int,
        default=None,
        metavar="N",
        help="how many guests run at once (default: from the machine's cores and free memory)",
    )
    add(
        "--hosts",
        default=None,
        metavar="USER@NAME[:DIR],...",
        help="run the guests on these machines, reached by ssh, each with this project in DIR (default: as here)",
    )
    add(
        "--locked",
        action="store_true",
        help="fail when the mirror no longer has a kernel package of the lock, instead of taking the newest",
    )
    add(
        "--silence",
        type=float,
        default=None,
        metavar="SECONDS",
        help="a guest that says nothing for so long is lost (default: scaled by its measured speed)",
    )
    add(
        "--boot-timeout",
        type=float,
        default=None,
        metavar="SECONDS",
        help="a guest that is not ready after so long is lost (default: 60 with KVM, 240 emulated)",
    )
    add(
        "--fresh",
        choices=["kernel", "file", "test"],
        default="kernel",
        help="how often a guest that nothing has run in is used (default: kernel)",
    )
    add(
        "--repeat",
        type=int,
        default=1,
        metavar="N",
        help="run each test N times (default: 1); with --fresh test each time in another guest",
    )
    add(
        "--keep-guest",
        action="store_true",
        help="stop at the first failure, with its guest as it is, and say how to enter it",
    )
    add("--gdb", action="store_true", help="with --keep-guest: let gdb connect to the guest's kernel, and say how")
    add(
        "--cold",
        action="store_true",
        help="boot every guest instead of restoring it from the snapshot of an earlier boot",
    )
    add(
        "--carry",
        type=Path,
        default=None,
        metavar="DIR",
        help="a folder that is /carried in every guest",
    )
    # of `nox -s run`: a word of the command each, and the seconds it may take
    add("--command", action="append", default=[], help=argparse.SUPPRESS)
    add("--command-timeout", type=float, default=None, help=argparse.SUPPRESS)
    add(
        "--manifest",
        type=Path,
        default=None,
        metavar="DIR",
        help="a folder like vmimages/ (default: the project's)",
    )
    add(
        "--baseline",
        type=Path,
        default=None,
        metavar="DIR",
        help="what the matrix is expected to find (default: baselines/matrix of the project)",
    )
    add(
        "--results",
        type=Path,
        default=None,
        metavar="DIR",
        help="where the run's results go (default: results/ of the project)",
    )


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Become the controller of the matrix, a guest's worker, or nothing.

    Behind pytest's own plugins, such as the terminal's reporter, and in front of xdist, which comes last of all.
    """
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is not None and WORKER_KEY in worker:
        _configure_worker(config, worker[WORKER_KEY])
    elif config.option.matrix and not (config.option.collectonly or config.option.help):
        from harness import controller

        try:
            controller.start(config)
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
    from harness.guest import plugin

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
        from harness.guest.keeping import KeepPlugin

        config.pluginmanager.register(KeepPlugin(told[OUTPUT].send))
    if told[COMMAND]:
        from harness.guest.command import CommandPlugin

        config.pluginmanager.register(CommandPlugin(facts, told[COMMAND], told[TIMEOUT], told[OUTPUT].send))
    plugin.register(config, facts, tuple(told[ARGUMENTS]))
