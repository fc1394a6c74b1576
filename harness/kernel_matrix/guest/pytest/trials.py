"""Try many objects in one guest: a pytest that has collected forks a child for each, which runs tests with it.

Only the object differs between mutants of a program. So the engine, the conftests and the tests are imported and
collected once, the guest is saved behind that (kernel_matrix.relay.preamble), and what a child does to itself ends with
it. The host's side is kernel_matrix.commands.mutation.guests.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import sys
import time
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, NoReturn

import pytest

from kernel_matrix.guest import agent
from kernel_matrix.guest.bpf import leaks
from kernel_matrix.guest.bpf.diagnosis import machine
from kernel_matrix.guest.bpf.step_error import StepError, errno_name
from kernel_matrix.guest.bpf.steps import object_path
from kernel_matrix.guest.pytest import plugin
from kernel_matrix.guest.system.deadline import SPEED
from kernel_matrix.shared.channel import frames
from kernel_matrix.shared.channel.worker_input import WORKER_KEY
from kernel_matrix.shared.outcomes import mutants
from kernel_matrix.shared.outcomes.mutants import Result, Trial

_CHUNK = 1 << 16
#: the steps before an object is in the kernel
_BEFORE_LOADED = frozenset({"open", "map_create", "load"})
#: characters that a result has at most of a failure or refusal
_MOST_TEXT = 300


class ChildPlugin:
    """Reports what a trial's child does, as lines of JSON."""

    def __init__(self, writing: int) -> None:
        self._writing = writing
        self.failed = False

    def write(self, **line: object) -> None:
        """Write a line, which is shorter than PIPE_BUF and so written as a whole."""
        os.write(self._writing, json.dumps(line).encode() + b"\n")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Report the test that begins: it is the one during which the guest may die."""
        self.write(test=nodeid)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        """Report a failure, after all other plugins have decided whether it is one."""
        report: pytest.TestReport = yield
        if report.failed:
            self.failed = True
            error = None if call.excinfo is None else call.excinfo.value
            late = isinstance(error, TimeoutError) or "(its limit)" in report.longreprtext
            self.write(failed=item.nodeid, why=_first_line(report), refused=_refusal(error), late=late)
        return report


def _first_line(report: pytest.TestReport) -> str:
    """Return the first line of a failure's message."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = report.longreprtext if crash is None else str(crash.message)
    return next(iter(text.strip().splitlines()), "")[:_MOST_TEXT]


def _refusal(error: BaseException | None) -> str:
    """Return why the object did not get into the kernel; empty when a failure has another reason."""
    steps: Iterator[StepError] = iter(()) if error is None else machine.refused_steps(error)
    for step in steps:
        if step.stage in _BEFORE_LOADED:
            words = [line for line in step.log.splitlines() if line and not line.startswith(("processed", "libbpf"))]
            return f"{step.stage}: {errno_name(step.errno)}: {words[-1] if words else step.what}"[:_MOST_TEXT]
    return ""


def in_order(items: Sequence[pytest.Item], tests: Collection[str], first: Sequence[str]) -> list[pytest.Item]:
    """Return the items of these files, folders, test functions and node ids, in the order of their files.

    Those named first come first, with the rest of their files behind.

    Files stay together, because fixtures of theirs load the object.
    """
    chosen = [item for item in items if _is_chosen(item.nodeid, tests)]
    files = list(dict.fromkeys([name.partition("::")[0] for name in first]))
    rank = {name: place for place, name in enumerate(first)}

    def key(item: pytest.Item) -> tuple[int, int]:
        file = item.nodeid.partition("::")[0]
        place = files.index(file) if file in files else len(files)
        return place, rank.get(item.nodeid, len(rank)) if file in files else 0

    return sorted(chosen, key=key)


def _is_chosen(nodeid: str, tests: Collection[str]) -> bool:
    file = PurePosixPath(nodeid.partition("::")[0])
    named = nodeid in tests or nodeid.partition("[")[0] in tests
    return named or any(file.is_relative_to(test) for test in tests)


@dataclass(frozen=True, slots=True)
class Port:
    """The channel to the host."""

    reading: int
    writing: int

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Send a frame."""
        agent.write_all(self.writing, frames.frame(kind, payload))

    def received(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield frames until the host closes its end."""
        stream = frames.Reader()
        while data := os.read(self.reading, _CHUNK):
            yield from stream.feed(data)


class TrialsPlugin:
    """Replaces the run of the collected tests by as many trials as the host asks for."""

    def __init__(self, port: Port) -> None:
        self._port = port
        #: whether the host was answered
        self.answered = False

    def answer(self) -> None:
        """Tell the host that all is collected; the guest is saved here."""
        gc.collect()
        gc.freeze()
        self.answered = True
        # the relay drops the first byte, the answer to a bootstrap line
        agent.write_all(self._port.writing, b"1" + frames.ANSWER)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Serve trials until the host has no more."""
        self.answer()
        data = b""
        for kind, payload in self._port.received():
            if kind == mutants.OBJECT:
                data = payload
            elif kind == mutants.TRIAL:
                trial = mutants.trial_of(payload)
                self._port.send(mutants.RESULT, self._try(session, trial, data).payload())
        return True

    def _try(self, session: pytest.Session, trial: Trial, data: bytes) -> Result:
        if session.testsfailed:
            return Result(invalid="its tests were not collected")
        items = in_order(session.items, trial.tests, trial.first)
        if not items:
            return Result(invalid=f"no test is collected from {', '.join(trial.tests)}")
        before = leaks.present()
        with _in_place(trial.object, data):
            result = self._run(items, trial)
        if left := leaks.wait_for_release(before):
            result = replace(result, spoiled=f"left in the kernel: {', '.join(sorted(left))}")
        return result

    def _run(self, items: Sequence[pytest.Item], trial: Trial) -> Result:
        reading, writing = os.pipe()
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _run_items(items, writing, trial)
        os.close(writing)
        ended = os.pidfd_open(child)
        try:
            lines, late = self._follow(reading, ended, began + trial.seconds)
        finally:
            # the child leads the group of what it has started
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.kill(child, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            os.close(reading)
            os.close(ended)
        return _result(lines, time.monotonic() - began, late=late, status=status)

    def _follow(self, reading: int, ended: int, end: float) -> tuple[list[dict[str, Any]], bool]:
        """Read what the child reports until it ends; return that, and whether its time was over before."""
        data = bytearray()
        lines: list[dict[str, Any]] = []
        while True:
            ready, _, _ = select.select([reading, ended], [], [], frames.BEAT)
            if reading in ready:
                chunk = os.read(reading, _CHUNK)
                data += chunk
                *whole, rest = data.split(b"\n")
                data = bytearray(rest)
                for line in map(json.loads, whole):
                    lines.append(line)
                    if "test" in line:
                        self._port.send(mutants.TEST, line["test"].encode())
                if chunk:
                    continue
            if ended in ready:
                return lines, False
            if time.monotonic() > end:
                return lines, True
            self._port.send(mutants.ALIVE)


def _result(lines: Sequence[dict[str, Any]], seconds: float, *, late: bool, status: int) -> Result:
    """Return the result of a child from what it has reported and how it ended."""
    tests = [line["test"] for line in lines if "test" in line]
    failures = [line for line in lines if "failed" in line]
    failed = tuple((line["failed"], line["why"]) for line in failures)
    refused = next((line["refused"] for line in failures if line["refused"]), "")
    result = Result(failed, refused, len(tests), seconds, late=late or any(line["late"] for line in failures))
    if any("over" in line for line in lines):
        return result
    why = f"no end within {seconds:.0f} s" if late else f"the test process ended with {status}"
    during = tests[-1] if tests else "the start"
    return replace(result, failed=(*failed, (during, why)), spoiled="" if failed else why)


def _run_items(items: Sequence[pytest.Item], writing: int, trial: Trial) -> NoReturn:
    """Run the items in a child, to the first failure or to the end, and exit."""
    status = 1
    try:
        os.setsid()
        os.environ[SPEED] = str(float(os.environ.get(SPEED, "1")) * trial.limits)
        reports = ChildPlugin(writing)
        session = items[0].session
        session.config.pluginmanager.register(reports, "matrix-trial")
        if (guest := session.config.pluginmanager.get_plugin(plugin.NAME)) is not None:
            # children before this one have read on in the log that all share
            guest.skip_log()
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if trial.stops and reports.failed:
                break
        # what pytest still tears down at the end of a session that stops early
        session.config.hook.pytest_sessionfinish(session=session, exitstatus=0)
        reports.write(over=True)
        status = 0
    finally:
        # nothing of the parent's is cleaned up here
        os._exit(status)


@contextmanager
def _in_place(name: str, data: bytes) -> Iterator[None]:
    """Replace a compiled object."""
    path = object_path(name)
    compiled = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(compiled)


class WorkerPlugin:
    """Makes this pytest a guest's worker, as xdist does with the input that it sends."""

    def __init__(self, worker: dict[str, Any]) -> None:
        self._worker = worker

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Set what kernel_matrix.plugin looks at."""
        vars(config)["workerinput"] = {WORKER_KEY: self._worker}


def main() -> None:
    """Serve trials on standard input and output, as the agent's worker."""
    port = Port(os.dup(0), os.dup(1))
    # tests read nothing from the channel, and write nothing to it
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    header = agent.read_exactly(port.reading, mutants.HEADER)
    begin = mutants.begin_of(bytes(agent.read_exactly(port.reading, mutants.payload_size(bytes(header)))))
    sys.path.insert(0, agent.PROJECT)
    trials = TrialsPlugin(port)
    status = pytest.main(list(begin.arguments), plugins=[WorkerPlugin(begin.worker), trials])
    if not trials.answered:
        trials.answer()
        port.send(
            mutants.RESULT, Result(invalid=f"pytest ended with {status!r}; its output is on the console").payload()
        )
