"""The pytest plugin of a guest: names its kernel in every node id, ties the kernel's log to the tests."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Collection, Generator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from harness.expect import kernel_of_argument
from harness.features import GuestFacts
from harness.guest.marks import GUEST_FACTS
from harness.workers import DESELECTED, DIAGNOSIS, KERNEL_LOG, VERIFIER, WORKER_KEY

#: where the console shows which test a line belongs to (harness.console reads it back)
_START = "harness: start "
_KMSG = Path("/dev/kmsg")
#: what the kernel prints in front of every WARN and BUG
_CUT_HERE = "------------[ cut here ]------------"
#: a record of /dev/kmsg: "level,sequence,microseconds,flags;text"
_RECORD = re.compile(r"(?P<level>\d+),\d+,(?P<time>\d+),[^;]*;(?P<text>[^\n]*)")


class KernelLog:
    """What the kernel has logged since the last look."""

    def __init__(self) -> None:
        self._reader = os.open(_KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self._reader, 0, os.SEEK_END)

    def mark(self, nodeid: str) -> None:
        """Write the start of a test into the log, and so onto the console."""
        # level 1 (alert) passes every console log level
        _KMSG.write_text(f"<1>{_START}{nodeid}\n")

    def new(self) -> list[str]:
        """Return the lines since the last call, the harness's own left out."""
        lines: list[str] = []
        while True:
            try:
                record = os.read(self._reader, 1 << 13).decode(errors="replace")
            except BlockingIOError:
                return lines
            except BrokenPipeError:  # records were overwritten: kernel, Documentation/ABI/testing/dev-kmsg
                lines.append("... (records were lost)")
                continue
            if (match := _RECORD.match(record)) and _START not in match["text"]:
                lines.append(f"[{int(match['time']) / 1e6:12.6f}] {match['text']}")


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

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Attach what the kernel logged during the call."""
        self._log.new()
        try:
            return (yield)
        finally:
            self._attach(item, "call")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        """Say of a step that was refused and fails a test why it was."""
        report: pytest.TestReport = yield
        if report.failed and call.excinfo is not None:
            from harness.guest import machine

            for step in machine.refused_steps(call.excinfo.value):
                if step.log:
                    report.sections.append((VERIFIER, step.log))
                report.sections.append((DIAGNOSIS, str(machine.explain(step))))
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Let a test fail during which the kernel warned, whatever the test itself found."""
        result = yield
        self._attach(item, "teardown")
        for when, title, text in item._report_sections:  # noqa: SLF001 - pytest has a setter only
            if title == KERNEL_LOG and _CUT_HERE in text:
                pytest.fail(f"the kernel warned ({when}):\n{text}", pytrace=False)
        return result

    def _attach(self, item: pytest.Item, when: str) -> None:
        if lines := self._log.new():
            item.add_report_section(when, KERNEL_LOG, "\n".join(lines))


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
    from harness.guest import fixtures, marks

    config.stash[GUEST_FACTS] = facts
    config.pluginmanager.register(marks, "harness-marks")
    config.pluginmanager.register(fixtures, "harness-fixtures")
    if config.option.pcap:
        from harness.guest import capture

        config.pluginmanager.register(capture.CapturePlugin(), "harness-capture")
    if config.option.repeat > 1:
        config.pluginmanager.register(Repeats(config.option.repeat))
    config.pluginmanager.register(GuestPlugin(facts, arguments, begins), "harness-guest")
