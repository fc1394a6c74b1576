"""The pytest plugin of a guest: names its kernel in every node id, ties the kernel's log to the tests."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Collection, Generator, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import pytest

from kernel_matrix.guest.pytest.marks import GUEST_FACTS
from kernel_matrix.guest.system.kernel_log import Excerpt, KernelLog
from kernel_matrix.shared.cells import GUEST
from kernel_matrix.shared.expect import kernel_of_argument
from kernel_matrix.shared.features import GuestFacts
from kernel_matrix.shared.protocol import DESELECTED, DIAGNOSIS, KERNEL_LOG, VERIFIER
from kernel_matrix.shared.worker_input import WORKER_KEY


def repeated(argument: str, times: int) -> list[str]:
    """Return the node ids that a test has which runs as often as that (`Repeats`): ``test[6.1-#2]``."""
    if times == 1 or not argument.endswith("]"):
        return [argument]
    return [f"{argument[:-1]}-#{number}]" for number in range(1, times + 1)]


class Repeats:
    """Lets every test run several times, each with a node id of its own."""

    def __init__(self, times: int) -> None:
        self._times = times

    @pytest.hookimpl(trylast=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make the repetition the last parameter, which no test takes."""
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
        #: what the kernel has said in the running test that must not be, each with its phase
        self._wrong: list[str] = []
        self._seeded = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make the kernel the first parameter of every test."""
        name = self._facts.kernel
        metafunc.parametrize("kernel", [name], ids=[name], indirect=True, scope="session")

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        """Collect no more than this guest is for; leave out the node ids that name another kernel."""
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
        """Put first what this guest begins with."""
        begins = beginning([item.nodeid.partition("::")[0] for item in items], self._begins)
        items[:] = items[begins:] + items[:begins]

    @pytest.hookimpl(tryfirst=True)
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Say on which kernel a file could not be collected; the controller sees the report only."""
        if report.failed:
            report.sections.append((WORKER_KEY, self._facts.kernel))
            # xdist drops a report whose text it has seen from another worker
            report.longrepr = f"kernel {self._facts.kernel}: {report.longreprtext}"

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Look at what the kernel has said since it booted, and while the tests were collected."""
        self._look_outside(session.config)

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Tell the controller what was deselected here (-k, -m): it expects no cell of it."""
        for item in items:
            output: dict[str, Any] = getattr(item.config, "workeroutput", {})
            output.setdefault(DESELECTED, []).append(item.nodeid)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Mark where the test starts on the console; the first one does not share its random numbers.

        This worker may be one of many copies, and none of them has run anything yet.
        """
        if not self._seeded:
            random.seed(os.urandom(32))
            self._seeded = True
        self._log.mark(nodeid)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Leave to the guest what the kernel has said since the test before."""
        self._look_outside(item.config)
        self._wrong.clear()
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Attach what the kernel logged during the set-up, that of fixtures of a larger scope included."""
        with self._listening(item, "setup"):
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Attach what the kernel logged during the call."""
        with self._listening(item, "call"):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        """Say of a step that was refused and fails a test why it was."""
        report: pytest.TestReport = yield
        if report.failed and call.excinfo is not None:
            from kernel_matrix.guest.bpf import machine

            for step in machine.refused_steps(call.excinfo.value):
                if step.log:
                    report.sections.append((VERIFIER, step.log))
                report.sections.append((DIAGNOSIS, str(machine.explain(step))))
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Let a test fail during which the kernel warned, in whichever phase and whatever the test itself found."""
        with self._listening(item, "teardown"):
            result = yield
        if self._wrong:
            pytest.fail("\n".join(self._wrong), pytrace=False)
        return result

    # behind the teardown of what a run that stops early has left (_pytest.runner)
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Leave to the guest what the kernel has said since its last test."""
        self._look_outside(session.config)

    @contextlib.contextmanager
    def _listening(self, item: pytest.Item, when: str) -> Iterator[None]:
        try:
            yield
        finally:
            heard = self._log.new()
            if heard.lines:
                item.add_report_section(when, KERNEL_LOG, heard.text)
            if heard.wrong:
                self._wrong.append(f"{heard.wrong} ({when}):\n{heard.why}")

    def _look_outside(self, config: pytest.Config) -> None:
        """Report what the kernel must not have said as the guest's own error: no test was running."""
        heard: Excerpt = self._log.new()
        if heard.wrong:
            text = f"{heard.wrong} outside every test:\n{heard.why}"
            report = pytest.CollectReport(GUEST, "failed", text, [])
            config.hook.pytest_collectreport(report=report)


class GonePlugin:
    """Stands in for a guest that is not coming back, on the host: collects nothing."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        """Take away what there is to collect.

        Not by ``pytest_ignore_collect``, which is not asked about a path of the command line: a suite's file that
        kills its guest would be imported by the host.
        """
        session.config.args[:] = []


def only(arguments: Sequence[str], files: Collection[str]) -> list[str]:
    """Return what of the command line's paths and node ids is in these files; a folder stands for those below it."""
    found: list[str] = []
    for argument in arguments:
        path = PurePosixPath(argument.partition("::")[0])
        found += [argument] if str(path) in files else [file for file in files if path in PurePosixPath(file).parents]
    return list(dict.fromkeys(found))


def beginning(files: Sequence[str], path: str) -> int:
    """Return the index of the first of the files that is that one or below it, 0 when none is."""
    return next((index for index, file in enumerate(files) if PurePosixPath(file).is_relative_to(path)), 0)


def register(config: pytest.Config, facts: GuestFacts, arguments: tuple[str, ...] = (), begins: str = "") -> None:
    """Make this pytest the worker of a guest.

    ``arguments``: the files that have tests for it, empty when that is up to the command line; ``begins``: the file or
    folder whose tests it runs first, empty when they are run in the order of collection.
    """
    from kernel_matrix.guest.pytest import fixtures, marks
    from kernel_matrix.guest.pytest.limits import LimitPlugin

    config.stash[GUEST_FACTS] = facts
    config.pluginmanager.register(marks, "matrix-marks")
    config.pluginmanager.register(fixtures, "matrix-fixtures")
    config.pluginmanager.register(LimitPlugin(config.option.test_timeout), "matrix-limits")
    if config.option.pcap:
        from kernel_matrix.guest.pytest import capture

        config.pluginmanager.register(capture.CapturePlugin(), "matrix-capture")
    if config.option.repeat > 1:
        config.pluginmanager.register(Repeats(config.option.repeat))
    config.pluginmanager.register(GuestPlugin(facts, arguments, begins), "matrix-guest")
