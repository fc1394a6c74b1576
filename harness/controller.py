"""The host's half of a run: guests as xdist workers, reports as cells.

Data flows one way: ``harness.preparation`` makes a `Plan` (what to boot), this module's plugin runs it and turns
reports into cells, ``harness.results`` keeps them, ``harness.matrix`` judges them.
"""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from dataclasses import replace

import execnet
import pytest
from _pytest.terminal import TerminalReporter
from execnet.gateway import RInfo
from rich.console import Console
from xdist.dsession import DSession, Interrupted
from xdist.workermanage import WorkerController

from harness import (
    comparison,
    expect,
    images,
    lanes,
    matrix,
    places,
    preparation,
    reports,
    results,
    sharding,
    snapshots,
    wire,
)
from harness.cells import BOOT, IMAGE, Cell, Outcome
from harness.changes import Change
from harness.ending import End, Ending
from harness.errors import HarnessError, of_system
from harness.guests import Guests, summary
from harness.lanes import Lane
from harness.output import Outputs
from harness.scheduler import Fresh, KernelScheduling
from harness.sharding import Unit
from harness.workers import (
    ARGUMENTS,
    COMMAND,
    DESELECTED,
    FACTS,
    KEEP,
    OUTPUT,
    PCAP,
    TIMEOUT,
    WORKER_KEY,
)

#: a kernel is given up when one guest after another has died that often in a lane without having run a test
_STRIKES = 2


def _kernel_of(node: WorkerController) -> str:
    name: str = node.gateway.spec.kernel
    return name


def _lane_of(node: WorkerController) -> Lane:
    return Lane(_kernel_of(node), int(node.gateway.spec.lane))


class MatrixPlugin:
    """Hooks of the controller, from the first gateway to the exit status."""

    def __init__(
        self, config: pytest.Config, plan: preparation.Plan, run: results.RunDirectory, place: places.Place
    ) -> None:
        self._config = config
        self._place = place
        self._plan = plan
        self._run = run
        self._fresh = Fresh(config.option.fresh)
        self._guests = {guest.kernel: guest for guest in plan.guests}
        self._scheduling = KernelScheduling(
            self._guests, _lane_of, self._fresh, lambda file: plan.whole.get(file, file)
        )
        #: those that have a guest, or will
        self._lanes = {Lane(kernel) for kernel in self._guests}
        self._times = Guests(plan.folder)
        self._strikes: Counter[Lane] = Counter()
        #: lane -> why its last guest is not replaced: it has a stand-in
        self._gone: dict[Lane, str] = {}
        #: kernel -> why its machine is gone
        self._lost: dict[str, str] = {}
        self._deselected: dict[str, set[str]] = {kernel: set() for kernel in self._guests}
        self._phases: dict[tuple[str, str], list[expect.Phase]] = {}
        self._endings: dict[Lane, Ending] = {}
        self._cells: list[Cell] = []
        self._user_interrupted = False
        self._judged: matrix.Matrix | None = None
        self._changes: tuple[Change, ...] = ()
        self._unwritten = ""
        self._outputs = Outputs(run.path / "output", self.show)
        self._channels: dict[str, execnet.Channel] = {}
        for kernel, why in plan.missing.items():
            self._cells.append(Cell(kernel, IMAGE, Outcome.ERROR, detail=why))
            run.append(self._cells[-1])

    def show(self, line: str) -> None:
        """Write a line of its own to the terminal."""
        terminal: TerminalReporter | None = self._config.pluginmanager.getplugin("terminalreporter")
        if terminal is not None:
            # behind the dots of tests that have passed
            begun = terminal._tw.width_of_current_line  # noqa: SLF001 - it has no public name
            terminal.write_line(f"\n{line}" if begun else line)

    # -- guests come and go

    @pytest.hookimpl(tryfirst=True)
    def pytest_xdist_make_scheduler(self) -> KernelScheduling:
        """Replace xdist's scheduler."""
        return self._scheduling

    def pytest_xdist_setupnodes(self) -> None:
        """Keep xdist from telling workers where this run's temporary files are: no guest has that folder."""
        self._config.pluginmanager.unregister(name="tmpdir")
        unused = vars(self._config).pop("_tmp_path_factory")
        # pytest takes it away itself when it ends
        self._config.add_cleanup(lambda: vars(self._config).update(_tmp_path_factory=unused))

    @pytest.hookimpl(tryfirst=True)
    def pytest_xdist_newgateway(self, gateway: execnet.Gateway) -> None:
        """Answer for a guest that may not have booted yet what xdist would wait for it to say."""
        gateway._cache_rinfo = RInfo(  # noqa: SLF001 - xdist caches it the same way
            {
                "executable": sys.executable,
                "platform": "linux",
                "cwd": "",
                "version_info": sys.version_info[:],
            }
        )

    def pytest_configure_node(self, node: WorkerController) -> None:
        """Tell a worker which kernel it is on."""
        lane = _lane_of(node)
        kernel = lane.kernel
        if lane not in self._gone and (gone := self._place.replaced(kernel)):
            self._gone[lane] = gone
            self._lose(kernel, gone)
            self._record(kernel, BOOT, expect.Decision(Outcome.LOST, gone))
        told = {
            "kernel": kernel,
            "features": sorted(self._guests[kernel].features),
            "all_features": sorted(self._plan.all_features),
            "kernels": {name: sorted(features) for name, features in self._plan.all_kernels.items()},
            "gone": self._gone.get(lane, ""),
            ARGUMENTS: list(self._guests[kernel].arguments),
            **self._extras(node),
        }
        # nothing that differs from run to run: a worker that was told the same before may have been saved
        node.workerinput.update(workerid="guest", workercount=1, testrunuid="matrix", mainargv=["pytest"])
        node.workerinput[WORKER_KEY] = told
        # xdist sends the controller's sys.path to a popen worker; a guest has its own
        if not told["gone"]:
            node.gateway.spec.popen = None

    def _extras(self, node: WorkerController) -> dict[str, object]:
        """Return what a worker is told of a command to run in place of tests, and of staying when one fails."""
        option = self._config.option
        told = {COMMAND: option.command, TIMEOUT: option.command_timeout, KEEP: option.keep_guest}
        if not (option.command or option.keep_guest):
            return told
        kernel = _kernel_of(node)
        # kept: a channel that nobody holds is closed
        self._channels[kernel] = channel = node.gateway.newchannel()
        channel.setcallback(lambda data: self._outputs.take(kernel, data))
        return {**told, OUTPUT: channel}

    @pytest.hookimpl(tryfirst=True)
    def pytest_testnodedown(self, node: WorkerController, error: object | None) -> None:
        """Let a guest go that has run everything; otherwise decide whether its lane gets another."""
        node.gateway.spec.popen = True
        lane = _lane_of(node)
        self._times.ends(lane, alive=error is None)
        if error is not None and lane in self._gone:
            # xdist would replace it again and again
            pytest.exit(f"the stand-in for kernel {lane} failed: {error}", returncode=HarnessError.exit_status)
        gone = self._place.gone(node)
        if error is None:
            self._released(node, lane, gone)
        else:
            self._died(node, lane, gone)

    def _released(self, node: WorkerController, lane: Lane, gone: str) -> None:
        """Give a lane another guest when it has tests left; when it is done, there is room."""
        self._deselected[lane.kernel].update(getattr(node, "workeroutput", {}).get(DESELECTED, ()))
        node.gateway.exit()
        over = lane in self._gone or not self._scheduling.remaining(lane)
        if not over and gone:
            self._lose(lane.kernel, gone)
        elif not over and self._goes_on(node):
            # what xdist itself does for a worker that died
            self._session_of_xdist()._clone_node(node)  # noqa: SLF001
        else:
            self._lanes.discard(lane)
            # its number may be used again
            self._gone.pop(lane, None)
            if not gone and self._goes_on(node):
                self._fill()

    def _died(self, node: WorkerController, lane: Lane, gone: str) -> None:
        """Decide whether what xdist puts in a dead guest's place is another guest or a stand-in."""
        kernel = lane.kernel
        last = Ending(kernel, End.EXITED, gone, self._release(kernel)) if gone else self._read_ending(lane)
        self._endings[lane] = last
        running = self._scheduling.current(node)
        if running is None:
            self._strikes[lane] += 1
            why = reports.describe_death(last, None, self._run.console(kernel))
            self._record(kernel, BOOT, expect.Decision(reports.outcome_of(last), why))
        else:
            self._strikes[lane] = 0
        remaining = self._scheduling.remaining(lane)
        if gone:
            self._give_up(node, gone)
            self._lose(kernel, gone)
        elif self._strikes[lane] >= _STRIKES:
            self._give_up(node, f"its guest died {_STRIKES} times in a row outside every test")
            self._scheduling.give_up(kernel)
        elif running is not None and remaining == 1:
            self._give_up(node, "nothing left to run")

    def _fill(self) -> None:
        """Where there is room that no guest waits for, let a kernel with much left have another."""
        while piece := lanes.longest(self._unclaimed()):
            lane = lanes.free(piece.kernel, self._lanes)
            self._lanes.add(lane)
            self._scheduling.claim(lane, piece)
            session = self._session_of_xdist()
            spec = execnet.XSpec(f"execmodel=main_thread_only//{self._place.relay(self._guests[piece.kernel], lane)}")
            session.nodemanager.group.allocate_id(spec)
            # as xdist does for a worker in a dead one's place
            session._active_nodes.add(session.nodemanager.setup_node(spec, session.queue.put))  # noqa: SLF001

    def _unclaimed(self) -> dict[lanes.Piece, float]:
        """Return what nobody has begun, of kernels that a guest more has room for, and how long it takes."""
        if not self._plan.weights:
            return {}
        up = [lane.kernel for lane in self._lanes]
        rooms = {kernel: self._place.has_room(kernel, up) for kernel in self._guests}
        if not any(rooms.values()):
            return {}
        weights = self._plan.weights
        return {
            piece: sum(weights.get(Unit(piece.kernel, file), 0.0) for file in files)
            for piece, files in self._scheduling.unclaimed().items()
            if rooms[piece.kernel]
        }

    def _session_of_xdist(self) -> DSession:
        session: DSession = self._config.pluginmanager.getplugin("dsession")
        return session

    def _goes_on(self, node: WorkerController) -> bool:
        """Whether the run is not to stop (-x)."""
        session, output = self._session_of_xdist(), node.workeroutput
        return not (session.shuttingdown or session.shouldstop or output["shouldfail"] or output["shouldstop"])

    def _give_up(self, node: WorkerController, why: str) -> None:
        # xdist replaces every worker that died: let the replacement be a plain Python that collects nothing
        self._gone[_lane_of(node)] = why
        node.gateway.spec.python = shlex.quote(sys.executable)
        node.gateway.spec.via = None

    def _lose(self, kernel: str, why: str) -> None:
        """Expect nothing more of a kernel whose machine is gone: its tests are not moved to another."""
        self._lost[kernel] = why
        self._scheduling.give_up(kernel)

    def _record_lost(self) -> None:
        """Say of every test that a machine has taken with it why there is no report."""
        there = {(cell.kernel, cell.test) for cell in self._cells}
        for kernel, test in sorted(self._expected() - there):
            if kernel in self._lost:
                self._record(kernel, test, expect.Decision(Outcome.LOST, self._lost[kernel]))

    def _read_ending(self, lane: Lane) -> Ending:
        try:
            return wire.decode(self._place.ending(self._guests[lane.kernel].of_lane(lane)), Ending)
        except (OSError, ValueError, HarnessError) as error:
            return Ending(kernel=lane.kernel, end=End.EXITED, reason=f"its relay was killed ({error})")

    # -- reports become cells

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Keep the session, whose count of tests the progress is shown against."""
        self._session = session

    @pytest.hookimpl(tryfirst=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """Say of the test in which a guest died what happened to the guest, with its console."""
        kernel = _kernel_of(report.node)
        last = self._endings[_lane_of(report.node)]
        report.when = "call"
        report.longrepr = reports.describe_death(last, crashitem, self._run.console(kernel))
        report.user_properties.append((expect.OUTCOME_PROPERTY, str(reports.outcome_of(last))))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Take the time of a guest's first test; what is left of the machine may be for one more guest."""
        if kernel := expect.kernel_of_argument(nodeid, self._guests):
            self._times.test_starts(self._scheduling.lane_of(kernel, nodeid))
        if not self._session_of_xdist().shuttingdown:
            self._fill()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect a test's phases; its last one makes the cell."""
        kernel = _kernel_of(report.node)
        # xdist takes what one worker collected for all there is
        self._session.testscollected = self._scheduling.foreseen
        if report.when == "call":
            self._keep_facts(kernel, report)
        for key, value in report.user_properties:
            if key == PCAP:
                self._run.keep_pcap(kernel, expect.split_nodeid(report.nodeid, kernel), str(value))
        phases = self._phases.setdefault((kernel, report.nodeid), [])
        phases.append(reports.phase_of(report))
        kept = self._config.option.keep_guest and report.failed
        if kept or reports.ends_test(report):
            del self._phases[kernel, report.nodeid]
            duration = sum(each.duration for each in phases)
            self._outputs.end(kernel)
            self._record(kernel, expect.split_nodeid(report.nodeid, kernel), expect.decide(phases), duration)

    def _keep_facts(self, kernel: str, report: pytest.TestReport) -> None:
        """Write what the test found out about its kernel (harness.guest.fixtures.record)."""
        for key, value in report.user_properties:
            if key.startswith(FACTS):
                self._run.keep_facts(key.removeprefix(FACTS), kernel, str(value))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Make a file that a guest could not collect an error of that kernel."""
        for title, kernel in report.sections:
            if title == WORKER_KEY and report.failed:
                self._record(kernel, report.nodeid, expect.Decision(Outcome.ERROR, reports.text_of(report)))

    def _record(self, kernel: str, test: str, decision: expect.Decision, duration: float = 0.0) -> None:
        cell = Cell(
            kernel,
            test,
            decision.outcome,
            self._release(kernel),
            round(duration, 3),
            decision.detail,
            decision.log,
            decision.verifier,
            decision.diagnosis,
        )
        self._cells.append(cell)
        try:
            self._run.append(cell)
        except OSError as error:
            pytest.exit(f"results cannot be written: {of_system(error)}", returncode=HarnessError.exit_status)

    def _release(self, kernel: str) -> str:
        return self._guests[kernel].release

    # -- the end

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Tell Ctrl-C from xdist's own way to stop (-x)."""
        self._user_interrupted = not isinstance(excinfo.value, Interrupted)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int | pytest.ExitCode) -> None:
        """Judge the matrix, write it, and let it decide the exit status."""
        self._place.collect(self._run, self._plan.folder)
        self._record_lost()
        self._run.join_consoles(self._guests)
        judged = matrix.Matrix.of(self._cells, self._expected(), [*self._guests, *self._plan.missing])
        self._judged = judged
        status = int(exitstatus)
        try:
            found = self._run.document(judged, self._plan.facts, status)
            if not (self._user_interrupted or status in {3, 4}):
                # a command is nobody's test
                if not self._config.option.command:
                    self._changes = comparison.of_run(self._plan.baseline, found, self._plan.scope)
                part = self._plan.part is not None
                status = 1 if status == 1 else matrix.exit_status(judged, self._changes, part=part)
                session.exitstatus = status
            found = replace(found, changes=self._changes, exit_status=status)
            self._run.finish(found, self._plan.facts, self._times.records())
            self._keep_part()
        except (OSError, HarnessError) as error:
            why = of_system(error) if isinstance(error, OSError) else error
            self._unwritten = f"results cannot be written: {why}"
            session.exitstatus = HarnessError.exit_status

    def _expected(self) -> set[tuple[str, str]]:
        """Every kernel runs what any of its variant collected, unless node ids of the command line name kernels."""
        own = {
            kernel: {expect.split_nodeid(nodeid, kernel) for nodeid in self._scheduling.collected(kernel)}
            for kernel in self._guests
        }
        named = any(expect.kernel_of_argument(argument, self._plan.all_kernels) for argument in self._config.args)
        found = matrix.expected(own, self._left_out(), named=named)
        return found if self._plan.part is None else {cell for cell in found if self._plan.part.has(*cell)}

    def _left_out(self) -> dict[str, set[str]]:
        return {
            kernel: {expect.split_nodeid(nodeid, kernel) for nodeid in nodeids}
            for kernel, nodeids in self._deselected.items()
        }

    def _keep_part(self) -> None:
        """Leave what `merge` needs to know of a shard."""
        if self._plan.part is not None:
            left_out = {kernel: tuple(sorted(tests)) for kernel, tests in self._left_out().items()}
            sharding.keep(self._run.path, replace(self._plan.part, left_out=left_out))

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """Show the matrix."""
        if self._judged is None:
            return
        terminalreporter.section("kernel matrix")
        screen = Console(
            file=terminalreporter._tw._file,  # noqa: SLF001 - it has no public name
            force_terminal=terminalreporter.hasmarkup or None,
            width=None if terminalreporter.hasmarkup else matrix.log_width(self._judged),
        )
        screen.print(matrix.render_table(self._judged, self._plan.facts.releases))
        told = comparison.told(self._changes, matrix.LISTED)
        for line in [*matrix.red_lines(self._judged), matrix.summary_line(self._judged.cells), *told]:
            terminalreporter.write_line(line)
        records = self._times.records()
        notes = [f"{each.kernel}: {each.note}" for each in records if each.note]
        for note in [*self._plan.notes, *dict.fromkeys(notes), self._unwritten]:
            if note:
                terminalreporter.write_line(f"note: {note}")
        if records:
            saved = snapshots.describe(images.cache_dir() / "snapshots")
            terminalreporter.write_line(f"{summary(records)}; a fresh one per {self._fresh}; {saved}")
        terminalreporter.write_line(f"{self._plan.facts.accelerator}; results in {self._run.path}")
