"""The pytest plugin of a guest: it adds the kernel to every node id, and the kernel's log to the reports."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import pytest

from kernel_matrix.guest.pytest import marks, spent
from kernel_matrix.guest.pytest.marks import GUEST_FACTS
from kernel_matrix.guest.system import deadline
from kernel_matrix.guest.system.upkeep import alive
from kernel_matrix.guest.system.upkeep.kernel_log import Excerpt, KernelLog
from kernel_matrix.shared.bpf import compiled
from kernel_matrix.shared.channel.protocol import COMPILED, DESELECTED, DIAGNOSIS, KERNEL_LOG, VERIFIER
from kernel_matrix.shared.channel.worker_input import WORKER_KEY
from kernel_matrix.shared.outcomes.cells import GUEST
from kernel_matrix.shared.outcomes.expect import kernel_of_argument
from kernel_matrix.shared.outcomes.features import GuestFacts
from kernel_matrix.shared.project import SOURCES_VARIABLE

#: the name under which the plugin is registered
NAME = "matrix-guest"


def repeated(argument: str, times: int) -> list[str]:
    """Return the node ids of a test that runs ``times`` times (`Repeats`): ``test[6.1-#2]``."""
    if times == 1 or not argument.endswith("]"):
        return [argument]
    return [f"{argument[:-1]}-#{number}]" for number in range(1, times + 1)]


class Repeats:
    """Runs every test several times, each with its own node id."""

    def __init__(self, times: int) -> None:
        self._times = times

    @pytest.hookimpl(trylast=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Add the repetition as the last parameter, which no test uses."""
        metafunc.fixturenames.append("repetition")
        numbers = range(1, self._times + 1)
        metafunc.parametrize("repetition", numbers, ids=[f"#{number}" for number in numbers])


class GuestPlugin:
    """Hooks of one guest."""

    def __init__(self, facts: GuestFacts, arguments: tuple[str, ...] = (), begins: str = "") -> None:
        self._facts = facts
        self._arguments = arguments
        self._begins = begins
        self._log = KernelLog()
        #: warnings and losses of the kernel's log during the running test, each with its phase
        self._wrong: list[str] = []
        self._awake = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make the kernel the first parameter of every test, and the loader the second of each that loads objects."""
        name = self._facts.kernel
        metafunc.parametrize("kernel", [name], ids=[name], indirect=True, scope="session")
        marks.parametrize_loader(metafunc, self._facts.loaders)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        """Restrict collection to this guest's files; leave out the node ids that name another kernel."""
        if self._arguments:
            session.config.args[:] = only(session.config.args, self._arguments)
        session.config.args[:] = [
            argument
            for argument in session.config.args
            if kernel_of_argument(argument, self._facts.kernels) in {None, self._facts.kernel}
            for argument in repeated(argument, session.config.option.repeat)
        ]

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Move the tests with which this guest begins to the front."""
        first = index_below([item.nodeid.partition("::")[0] for item in items], self._begins)
        items[:] = items[first:] + items[:first]

    @pytest.hookimpl(tryfirst=True)
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Add the kernel to the report of a collection failure; the controller sees only the report."""
        if report.failed:
            report.sections.append((WORKER_KEY, self._facts.kernel))
            # xdist drops a report whose text another worker has sent already
            report.longrepr = f"kernel {self._facts.kernel}: {report.longreprtext}"

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Check the kernel's log since the boot, including the collection."""
        self._check_log_outside_tests(session.config)

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Report deselected tests (-k, -m) to the controller, which expects no cell of them."""
        for item in items:
            output: dict[str, Any] = getattr(item.config, "workeroutput", {})
            output.setdefault(DESELECTED, []).append(item.nodeid)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Mark the start of a test on the console; before the first test, do what is this copy's own.

        This worker may be one of many copies of a saved one, which would all have the same random numbers, and the
        limits of the machine as it was when that was saved.
        """
        if not self._awake:
            random.seed(os.urandom(32))
            deadline.read_limits()
            self._awake = True
        self._log.mark(nodeid)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Attribute the kernel's log since the previous test to the guest."""
        self._check_log_outside_tests(item.config)
        self._wrong.clear()
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Attach the kernel's log of the set-up, with the fixtures of a larger scope."""
        with self._kernel_log_attached(item, "setup"):
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Attach the kernel's log of the call."""
        with self._kernel_log_attached(item, "call"):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        """Add what a loader has compiled, and a diagnosis to the report of a test that fails with a refused step."""
        report: pytest.TestReport = yield
        _report_compiled(report)
        if report.failed and call.excinfo is not None:
            from kernel_matrix.guest.bpf.diagnosis import machine

            for step in machine.refused_steps(call.excinfo.value):
                if step.log:
                    report.sections.append((VERIFIER, step.log))
                report.sections.append((DIAGNOSIS, str(machine.explain(step))))
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Fail a test during which the kernel warned, in any phase, whatever the test's own result is."""
        with self._kernel_log_attached(item, "teardown"):
            result = yield
        if self._wrong:
            spent.mark(item.config)
            pytest.fail("\n".join(self._wrong), pytrace=False)
        return result

    # after the teardowns that a run that stops early still has to do (_pytest.runner)
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Attribute the kernel's log since the last test to the guest."""
        self._check_log_outside_tests(session.config)

    def skip_log(self) -> None:
        """Leave out what the kernel has logged until now, in a child that is forked to run tests."""
        self._log.skip()

    @contextlib.contextmanager
    def _kernel_log_attached(self, item: pytest.Item, when: str) -> Iterator[None]:
        try:
            yield
        finally:
            messages = self._log.new()
            if messages.lines:
                item.add_report_section(when, KERNEL_LOG, messages.text)
            if messages.wrong:
                self._wrong.append(f"{messages.wrong} ({when}):\n{messages.why}")

    def _check_log_outside_tests(self, config: pytest.Config) -> None:
        """Report a warning outside any test as the guest's own error."""
        messages: Excerpt = self._log.new()
        if messages.wrong:
            text = f"{messages.wrong} outside every test:\n{messages.why}"
            report = pytest.CollectReport(GUEST, "failed", text, [])
            config.hook.pytest_collectreport(report=report)


def _report_compiled(report: pytest.TestReport) -> None:
    """Add what loaders have compiled in a phase to its report; what that took is no part of the phase's duration."""
    from kernel_matrix.guest.bpf import loaders

    while loaders.new:
        made = loaders.new.pop(0)
        report.user_properties.append((COMPILED, compiled.as_text(made)))
        report.duration = max(0.0, report.duration - made.seconds)


class GonePlugin:
    """Replaces, on the host, a guest that cannot be started again: it collects nothing."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        """Remove all arguments, so that nothing is collected.

        ``pytest_ignore_collect`` does not suffice: pytest does not call it for paths of the command line, and the host
        would import a test file that kills its guest.
        """
        session.config.args[:] = []


def only(arguments: Sequence[str], files: Collection[str]) -> list[str]:
    """Restrict the command line's paths and node ids to these files; a folder becomes the files below it."""
    selected: list[str] = []
    for argument in arguments:
        path = PurePosixPath(argument.partition("::")[0])
        selected += (
            [argument] if str(path) in files else [file for file in files if path in PurePosixPath(file).parents]
        )
    return list(dict.fromkeys(selected))


def index_below(files: Sequence[str], path: str) -> int:
    """Return the index of the first file that is ``path`` or below it, 0 when there is none."""
    return next((index for index, file in enumerate(files) if PurePosixPath(file).is_relative_to(path)), 0)


def register(
    config: pytest.Config,
    facts: GuestFacts,
    arguments: tuple[str, ...] = (),
    begins: str = "",
    beat: Callable[[bytes], None] | None = None,
) -> None:
    """Make this pytest the worker of a guest.

    ``arguments``: the files with its tests; empty: those of the command line. ``begins``: the file or folder whose
    tests it runs first; empty: in the order of collection. ``beat``: sends a heartbeat to the host.
    """
    from kernel_matrix.guest.pytest import attached, fixtures
    from kernel_matrix.guest.pytest.items import objects, own_commands
    from kernel_matrix.guest.pytest.limits import LimitPlugin

    config.stash[GUEST_FACTS] = facts
    config.stash[objects.KERNELS] = (facts.kernel,)
    config.stash[own_commands.COMMANDS] = facts.commands
    os.environ[SOURCES_VARIABLE] = facts.sources
    if beat is not None:
        alive.beat_through(beat)
    config.pluginmanager.register(marks, "matrix-marks")
    config.pluginmanager.register(fixtures, "matrix-fixtures")
    config.pluginmanager.register(objects, "matrix-objects")
    config.pluginmanager.register(own_commands, "matrix-commands")
    config.pluginmanager.register(attached, "matrix-attached")
    config.pluginmanager.register(LimitPlugin(config.option.test_timeout), "matrix-limits")
    if hasattr(config, "workerinput"):
        config.pluginmanager.register(spent.SpentPlugin(), spent.NAME)
    if config.option.pcap:
        from kernel_matrix.guest.pytest import capture

        config.pluginmanager.register(capture.CapturePlugin(), "matrix-capture")
    if config.option.repeat > 1:
        config.pluginmanager.register(Repeats(config.option.repeat))
    config.pluginmanager.register(GuestPlugin(facts, arguments, begins), NAME)
