"""The controller's two plugins, each alone: one sends what happens to guests, the other keeps it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from xdist.workermanage import WorkerController

from kernel_matrix.plan.preparation import Plan, PlannedGuest
from kernel_matrix.report.run_folder import RunDirectory, RunFacts
from kernel_matrix.results import document
from kernel_matrix.results.evidence import ObjectEvidence, ProgramSource
from kernel_matrix.session import events
from kernel_matrix.session.controller import ControllerPlugin
from kernel_matrix.session.display.output import Outputs
from kernel_matrix.session.nodes import worker_of
from kernel_matrix.session.scheduler import KernelScheduling
from kernel_matrix.session.workers import WorkersPlugin
from kernel_matrix.shared import pytest_internals, wire
from kernel_matrix.shared.bpf import compiled
from kernel_matrix.shared.channel.division import WorkerId
from kernel_matrix.shared.channel.protocol import COMPILED, DESELECTED
from kernel_matrix.shared.channel.worker_input import WorkerInput
from kernel_matrix.shared.outcomes.cells import BOOT, Cell, Outcome
from kernel_matrix.shared.outcomes.expect import Decision
from kernel_matrix.shared.outcomes.features import GuestFacts
from kernel_matrix.vm.ending import End, Ending
from kernel_matrix.vm.guests import Guests
from tests.result_sets import read_cells

TEST = "a.py::test_x"
PANIC = Ending("6.1", End.PANIC, "the kernel panicked: BUG", release="6.1.0", console="harness: start\nBUG: x\n")
FIRST = WorkerId("6.1")


class Heard:
    """Stands in for the hooks of the session."""

    def __init__(self) -> None:
        self.events: list[events.GuestEvent] = []

    def pytest_matrix_guest(self, event: events.GuestEvent) -> None:
        self.events.append(event)


class Hosts:
    """Stands in for the machine with the guests."""

    def __init__(self) -> None:
        self.lost = ""

    def replaced(self, _: str) -> str:
        return ""

    def gone(self, _: object) -> str:
        return self.lost

    def ending(self, guest: PlannedGuest) -> bytes:
        return guest.ending_path.read_bytes()

    def collect(self, run: RunDirectory, folder: Path) -> None:
        pass

    def has_slot(self, kernel: str, up: object) -> bool:
        return False


class Node:
    """Stands in for xdist's WorkerController."""

    shutting_down = False

    def __init__(self, **workeroutput: object) -> None:
        spec = SimpleNamespace(kernel="6.1", worker="1", popen=True, python="", via=None)
        self.gateway = SimpleNamespace(spec=spec, exit=lambda: None)
        self.workeroutput = {"shouldfail": False, "shouldstop": False, **workeroutput}

    def send_runtest_some(self, _: list[int]) -> None:
        """Send nothing."""

    def shutdown(self) -> None:
        """End nothing."""


class Session:
    """The plugins of a run on 6.1, with nothing behind them."""

    def __init__(self, folder: Path) -> None:
        self.hook = Heard()
        self.hosts = Hosts()
        self.run = RunDirectory.create(folder / "results")
        guest = PlannedGuest("6.1", "6.1.0", frozenset(), folder / "6.1.json", folder / "6.1.ending.json")
        self.plan = Plan((guest,), folder, {}, frozenset(), {"6.1": frozenset()}, RunFacts("tcg", 1, ()), ())
        self.dsession = SimpleNamespace(shuttingdown=False, shouldstop=False)
        option = SimpleNamespace(command=[], command_timeout=None, keep_guest=False)
        manager = SimpleNamespace(getplugin=lambda _: self.dsession)
        self.scheduling = KernelScheduling(["6.1"], worker_of)
        outputs = Outputs(folder / "output", lambda _: None)
        hosts = cast("Any", self.hosts)
        config: Any = SimpleNamespace(option=option, hook=self.hook, args=["a.py"], pluginmanager=manager)
        times = Guests(folder)
        self.controller = ControllerPlugin(config, self.plan, self.run, hosts, outputs, self.scheduling, times)
        self.workers = WorkersPlugin(config, self.plan, self.run, hosts, outputs, self.scheduling, times)

    def collects(self, stand_in: Node, *tests: str) -> None:
        node = cast("WorkerController", stand_in)
        self.scheduling.add_node(node)
        self.scheduling.add_node_collection(node, [f"{test}[6.1]" for test in tests])
        self.scheduling.schedule()

    def down(self, node: Node, error: object | None) -> None:
        self.workers.pytest_testnodedown(cast("WorkerController", node), error)

    def ends(self) -> tuple[int, dict[str, Outcome]]:
        """Return the run's exit status and its cells."""
        session = SimpleNamespace(exitstatus=0)
        self.controller.pytest_sessionfinish(cast("Any", session), session.exitstatus)
        cells = read_cells(self.run.path / "results.jsonl")
        return session.exitstatus, {cell.test: cell.outcome for cell in cells}

    def cells(self) -> tuple[Cell, ...]:
        return read_cells(self.run.path / "results.jsonl")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path)


# -- the controller


def test_what_a_guest_did_outside_every_test_is_a_cell(session: Session) -> None:
    session.controller.pytest_matrix_guest(events.OutsideTest("6.1", BOOT, Decision(Outcome.LOST, "no answer")))
    (cell,) = session.cells()
    assert (cell.kernel, cell.test, cell.outcome, cell.detail, cell.release) == (
        *("6.1", BOOT, Outcome.LOST, "no answer", "6.1.0"),
    )


def test_a_crash_report_says_how_the_workers_guest_ended(session: Session) -> None:
    session.controller.pytest_matrix_guest(events.GuestDied(FIRST, PANIC))
    session.controller.pytest_matrix_guest(events.GuestDied(WorkerId("6.1", 2), Ending("6.1", End.SILENT, "no word")))
    report: Any = SimpleNamespace(node=Node(), user_properties=[], nodeid=f"{TEST}[6.1]")
    session.controller.pytest_handlecrashitem(f"{TEST}[6.1]", report)
    assert report.user_properties == [("outcome", "crash")]
    assert "the kernel panicked: BUG" in report.longrepr


def test_the_tests_of_a_lost_kernel_are_lost_and_not_forgotten(session: Session) -> None:
    session.collects(Node(), TEST, "a.py::test_y")
    session.controller.pytest_matrix_guest(events.KernelLost("6.1", "host a is gone"))
    # all of it lost is a run without a verdict
    assert session.ends() == (3, {TEST: Outcome.LOST, "a.py::test_y": Outcome.LOST})
    assert {cell.detail for cell in session.cells()} == {"host a is gone"}


def test_what_was_left_out_there_is_not_missing(session: Session) -> None:
    session.collects(Node(), TEST)
    session.controller.pytest_matrix_guest(events.Deselected("6.1", ("a.py::test_y[6.1]",)))
    assert session.ends()[1] == {TEST: Outcome.NOTRUN}


def test_what_a_guest_compiled_is_kept_and_a_note(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the phase in which it was compiled, whatever its test's outcome is; the test's duration is the report's."""
    monkeypatch.setenv("KERNEL_MATRIX_CACHE", str(session.run.path / "cache"))
    made = compiled.Compiled("0" * 16, "1" * 32, "a.bpf.o", "bcc", 150.5, "GPL", 1, {}, {})
    session.collects(Node(), TEST)
    session.controller.pytest_sessionstart(cast("Any", SimpleNamespace(testscollected=0)))
    for when in ("setup", "call", "teardown"):
        report: Any = pytest.TestReport(f"{TEST}[6.1]", ("a.py", 0, "x"), {}, "passed", None, cast("Any", when))
        report.node, report.duration = Node(), 0.5
        if when == "setup":
            report.user_properties.append((COMPILED, compiled.as_text(made)))
        session.controller.pytest_runtest_logreport(report)
    session.ends()
    notes = json.loads((session.run.path / "matrix.json").read_text())["notes"]
    assert notes == ["6.1: bcc compiled a.bpf.o in 150.5 s, and later guests get it"]
    kept = compiled.kept(session.run.path / "cache/compiled" / made.compiler, made.key)
    assert kept == compiled.encode(made)
    assert [cell.duration for cell in session.cells()] == [1.5]


@pytest.mark.parametrize("loops", [True, False])
def test_objects_have_the_sources_read_while_guests_start(session: Session, loops: bool) -> None:
    """A run that ends before its loop has begun has them without sources."""
    bare = ObjectEvidence("build/x.bpf.o", "0" * 64, ("6.1",))
    complete = replace(bare, files=("x.c",), programs=(ProgramSource("p", ((0, 0, 3),)),))
    facts = replace(session.plan.facts, objects=(bare,))
    session.collects(Node(), TEST)
    session.controller._plan = replace(session.plan, facts=facts, read_objects=lambda: (complete,))
    if loops:
        session.controller.pytest_runtestloop()
    session.ends()
    assert document.read(session.run.path).objects == ((complete if loops else bare),)


def test_what_a_test_observed_is_in_its_cell(session: Session) -> None:
    session.controller.pytest_sessionstart(cast("Any", SimpleNamespace(testscollected=0)))
    for when in ("setup", "call", "teardown"):
        observed = [] if when == "setup" else [("observed", '["path", "link"]'), ("observed", '["a", "1"]')]
        report: Any = pytest.TestReport(f"{TEST}[6.1]", ("", 0, ""), {}, "passed", None, when, [], 0.1)
        report.node, report.user_properties = Node(), observed
        session.controller.pytest_runtest_logreport(report)
    (cell,) = session.cells()
    assert (cell.outcome, cell.observed) == (Outcome.PASS, (("a", "1"), ("path", "link")))


# -- the workers


@pytest.mark.parametrize(
    ("loaders", "beats"),
    [
        ({}, False),
        ({"libbpf": "", "aya": ""}, False),
        ({"bcc": ""}, True),
        ({"libbpf": "", "bcc": "no headers"}, False),
    ],
)
def test_a_guest_in_which_a_loader_compiles_has_a_heartbeat(
    loaders: dict[str, str],
    beats: bool,
    session: Session,
) -> None:
    """Each worker of a kernel through its own channel, which is kept: one without a reference is closed."""
    work = WorkerInput(GuestFacts("6.1", frozenset(), frozenset(), {}, loaders=loaders))
    nodes = [Node(), Node()]
    nodes[1].gateway.spec.worker = "2"
    made = []
    for node in nodes:
        node.gateway.newchannel = lambda: SimpleNamespace(setcallback=lambda _: None)
        made.append(session.workers._channel(cast("WorkerController", node), work))
    assert [channel is not None for channel in made] == [beats, beats]
    if beats:
        assert session.workers._channels == dict(zip((FIRST, WorkerId("6.1", 2)), made, strict=True))


def test_a_guest_that_dies_outside_every_test_is_told(session: Session) -> None:
    wire.write(session.plan.guests[0].ending_path, PANIC)
    session.down(Node(), "gone")
    died, outside = session.hook.events
    assert died == events.GuestDied(FIRST, PANIC)
    assert isinstance(outside, events.OutsideTest)
    assert (outside.test, outside.decision.outcome) == (BOOT, Outcome.CRASH)


def test_a_relay_that_left_no_ending_was_killed(session: Session) -> None:
    node = Node()
    session.collects(node, TEST)
    session.down(node, "gone")
    (died,) = session.hook.events
    assert isinstance(died, events.GuestDied)
    assert died.ending.reason.startswith("its relay was killed (")


def test_two_deaths_outside_every_test_give_the_kernel_up(session: Session) -> None:
    wire.write(session.plan.guests[0].ending_path, PANIC)
    node = Node()
    for _ in range(2):
        session.down(node, "gone")
    assert session.scheduling.tests_finished
    # the stand-in is a plain Python of this machine
    assert (node.gateway.spec.via, node.gateway.spec.python != "") == (None, True)


def test_a_guest_that_is_let_go_tells_what_it_left_out(session: Session) -> None:
    node = Node(**{DESELECTED: ["a.py::test_y[6.1]"]})
    session.collects(node)
    session.down(node, None)
    assert session.hook.events == [events.Deselected("6.1", ("a.py::test_y[6.1]",))]


def test_a_worker_with_tests_left_gets_another_guest(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced: list[object] = []
    monkeypatch.setattr(pytest_internals, "replace_node", lambda _, node: replaced.append(node))
    node = Node()
    session.collects(node, TEST, "a.py::test_y")
    session.down(node, None)
    assert replaced == [node]


def test_a_lost_machine_loses_its_kernels(session: Session) -> None:
    node = Node()
    session.collects(node, TEST)
    session.hosts.lost = "host a is gone"
    session.down(node, "gone")
    assert [type(event) for event in session.hook.events] == [events.GuestDied, events.KernelLost]
    assert session.hook.events[1] == events.KernelLost("6.1", "host a is gone")
