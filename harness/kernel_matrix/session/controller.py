"""The host's half of a run: reports become cells.

Data flows one way: ``kernel_matrix.plan.preparation`` makes a `Plan` (what to boot), ``kernel_matrix.session.workers``
boots it, this module's plugin turns the guests' reports into cells, ``kernel_matrix.report.run_folder`` stores them,
``kernel_matrix.results.matrix`` judges them.
"""

from __future__ import annotations

import gc
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest
from xdist.dsession import Interrupted

from kernel_matrix.plan import preparation, sharding
from kernel_matrix.plan.bpf import compiling
from kernel_matrix.remote import guest_hosts
from kernel_matrix.report import reports as run_reports
from kernel_matrix.report import run_folder
from kernel_matrix.results import comparison, matrix
from kernel_matrix.results.changes import Change
from kernel_matrix.results.evidence import ObjectEvidence
from kernel_matrix.session import events, reports
from kernel_matrix.session.display.output import Outputs
from kernel_matrix.session.nodes import kernel_of, worker_of
from kernel_matrix.session.scheduler import KernelScheduling
from kernel_matrix.shared import pytest_internals
from kernel_matrix.shared.channel.division import WorkerId
from kernel_matrix.shared.channel.protocol import COMPILED, FACTS, PCAP
from kernel_matrix.shared.channel.worker_input import WORKER_KEY
from kernel_matrix.shared.errors import HarnessError, of_system
from kernel_matrix.shared.outcomes import expect
from kernel_matrix.shared.outcomes.cells import IMAGE, Cell, Outcome
from kernel_matrix.vm.ending import Ending
from kernel_matrix.vm.guests import Guests, summary


class ControllerPlugin:
    """Hooks of the controller, from the first report to the exit status."""

    def __init__(
        self,
        config: pytest.Config,
        plan: preparation.Plan,
        run: run_folder.RunDirectory,
        hosts: guest_hosts.GuestHosts,
        outputs: Outputs,
        scheduling: KernelScheduling,
        times: Guests,
    ) -> None:
        self._config = config
        self._hosts = hosts
        self._plan = plan
        self._run = run
        self._outputs = outputs
        self._scheduling = scheduling
        self._times = times
        self._guests = {guest.kernel: guest for guest in plan.guests}
        self._phases: dict[tuple[str, str], list[expect.Phase]] = {}
        #: node id -> when its test began, on this machine's monotonic clock
        self._starts: dict[str, float] = {}
        self._cells: list[Cell] = []
        #: worker -> how its last guest ended, where the guest died
        self._endings: dict[WorkerId, Ending] = {}
        #: kernel -> why its machine is gone
        self._lost: dict[str, str] = {}
        #: kernel -> node ids that -k or -m deselected there
        self._deselected: dict[str, set[str]] = {kernel: set() for kernel in self._guests}
        self._user_interrupted = False
        self._judged: matrix.Matrix | None = None
        self._changes: tuple[Change, ...] = ()
        self._unwritten = ""
        self._objects: Future[tuple[ObjectEvidence, ...]] | None = None
        #: lines about what was compiled in guests
        self._notes: list[str] = []
        for kernel, why in plan.missing.items():
            self._cells.append(Cell(kernel, IMAGE, Outcome.ERROR, detail=why))
            run.append(self._cells[-1])

    def pytest_matrix_guest(self, event: events.GuestEvent) -> None:
        """Store a guest's event: cells are made from it."""
        match event:
            case events.OutsideTest(kernel, test, decision):
                self._record(kernel, test, decision)
            case events.GuestDied(worker, ending):
                self._endings[worker] = ending
            case events.KernelLost(kernel, why):
                self._lost[kernel] = why
            case events.Deselected(kernel, nodeids):
                self._deselected[kernel].update(nodeids)

    def _record_lost(self) -> None:
        """Record every test that was lost with its machine, and why it has no report."""
        recorded = {(cell.kernel, cell.test) for cell in self._cells}
        for kernel, test in sorted(self._expected() - recorded):
            if kernel in self._lost:
                self._record(kernel, test, expect.Decision(Outcome.LOST, self._lost[kernel]))

    # -- reports become cells

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Store the session: its count of tests is what pytest shows the progress against."""
        self._session = session

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> None:
        """Begin what the results need and guests do not: there is time for it while they start."""
        pool = ThreadPoolExecutor(1)
        self._objects = pool.submit(self._plan.read_objects)
        pool.submit(run_reports.prepare)
        # what is imported stays: at the end, pytest and Python would look through all of it for garbage, for 0.2 s
        pool.submit(gc.freeze)
        pool.shutdown(wait=False)

    @pytest.hookimpl(tryfirst=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """Complete the report of a test in which a guest died: what happened to the guest, and its console."""
        kernel = kernel_of(report.node)
        ending = self._endings[worker_of(report.node)]
        report.when = "call"
        report.duration = self._seconds_since_start(kernel, crashitem)
        report.longrepr = reports.describe_death(ending, crashitem, self._run.console(kernel))
        report.user_properties.append((expect.OUTCOME_PROPERTY, str(reports.outcome_of(ending))))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect a test's phases; make the cell from them after the last one."""
        kernel = kernel_of(report.node)
        # xdist takes the tests of one worker for all tests
        self._session.testscollected = self._scheduling.expected_tests
        if report.when == "call":
            self._keep_facts(kernel, report)
        for key, value in report.user_properties:
            if key == PCAP:
                self._run.keep_pcap(kernel, expect.split_nodeid(report.nodeid, kernel), str(value))
            elif key == COMPILED:
                self._notes.append(f"{kernel}: {compiling.keep(str(value))}")
        phases = self._phases.setdefault((kernel, report.nodeid), [])
        phases.append(reports.phase_of(report))
        stays_in_guest = self._config.option.keep_guest and report.failed
        if stays_in_guest or reports.ends_test(report):
            del self._phases[kernel, report.nodeid]
            self._starts.pop(report.nodeid, None)
            duration = sum(phase.duration for phase in phases)
            self._outputs.end(kernel)
            test = expect.split_nodeid(report.nodeid, kernel)
            self._record(kernel, test, expect.decide(phases), duration, reports.observed(report))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Record the time: the report of a test in which its guest dies has no duration."""
        self._starts[nodeid] = time.monotonic()

    def _seconds_since_start(self, kernel: str, nodeid: str) -> float:
        """Return how long a test took that has no more reports, less the durations of its reports so far."""
        began = self._starts.get(nodeid)
        phases = self._phases.get((kernel, nodeid), [])
        return 0.0 if began is None else max(0.0, time.monotonic() - began - sum(phase.duration for phase in phases))

    def _keep_facts(self, kernel: str, report: pytest.TestReport) -> None:
        """Write the facts that the test recorded about its kernel (kernel_matrix.guest.pytest.fixtures.record)."""
        for key, value in report.user_properties:
            if key.startswith(FACTS):
                self._run.keep_facts(key.removeprefix(FACTS), kernel, str(value))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Record a file that a guest could not collect as an error of that kernel."""
        for title, kernel in report.sections:
            if title == WORKER_KEY and report.failed:
                self._record(kernel, report.nodeid, expect.Decision(Outcome.ERROR, reports.text_of(report)))

    def _record(
        self,
        kernel: str,
        test: str,
        decision: expect.Decision,
        duration: float = 0.0,
        observed: tuple[tuple[str, str], ...] = (),
    ) -> None:
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
            observed,
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
        """Distinguish Ctrl-C from xdist's own way to stop (-x)."""
        self._user_interrupted = not isinstance(excinfo.value, Interrupted)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int | pytest.ExitCode) -> None:
        """Judge the matrix, write it, and let it decide the exit status."""
        self._collect()
        self._record_lost()
        self._run.join_consoles(self._guests)
        judged = matrix.Matrix.of(self._cells, self._expected(), [*self._guests, *self._plan.missing])
        self._judged = judged
        status = int(exitstatus)
        try:
            objects = self._objects.result() if self._objects else self._plan.facts.objects
            facts = replace(self._plan.facts, objects=objects, notes=(*self._plan.facts.notes, *self._notes))
            document = self._run.document(judged, facts, status)
            if not (self._user_interrupted or status in {3, 4}):
                # a command is no test: the baseline has nothing about it
                if not self._config.option.command:
                    self._changes = comparison.of_run(self._plan.baseline, document, self._plan.scope)
                part = self._plan.part is not None
                status = 1 if status == 1 else matrix.exit_status(judged, self._changes, part=part)
                session.exitstatus = status
            document = replace(document, changes=self._changes, exit_status=status)
            self._run.finish(document, facts, self._times.records())
            self._keep_part()
        except (OSError, HarnessError) as error:
            why = of_system(error) if isinstance(error, OSError) else error
            self._unwritten = f"results cannot be written: {why}"
            session.exitstatus = HarnessError.exit_status

    def _collect(self) -> None:
        """Fetch the files of guests on other machines; the summary says what could not be fetched."""
        try:
            self._hosts.collect(self._run, self._plan.folder)
        except (OSError, HarnessError) as error:
            self._unwritten = f"consoles are lost: {of_system(error) if isinstance(error, OSError) else error}"

    def _expected(self) -> set[tuple[str, str]]:
        """Return the expected cells: a kernel runs what any kernel of its variant collected.

        Where node ids of the command line name kernels, each kernel runs what it collected itself.
        """
        collected = {
            kernel: {expect.split_nodeid(nodeid, kernel) for nodeid in self._scheduling.collected(kernel)}
            for kernel in self._guests
        }
        named = any(expect.kernel_of_argument(argument, self._plan.all_kernels) for argument in self._config.args)
        cells = matrix.expected(collected, self._left_out(), named=named)
        return cells if self._plan.part is None else {cell for cell in cells if self._plan.part.has(*cell)}

    def _left_out(self) -> dict[str, set[str]]:
        return {
            kernel: {expect.split_nodeid(nodeid, kernel) for nodeid in nodeids}
            for kernel, nodeids in self._deselected.items()
        }

    def _keep_part(self) -> None:
        """Write what `merge` needs to know about a shard."""
        if self._plan.part is not None:
            left_out = {kernel: tuple(sorted(tests)) for kernel, tests in self._left_out().items()}
            sharding.keep(self._run.path, replace(self._plan.part, left_out=left_out))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the matrix."""
        if self._judged is None:
            return
        from kernel_matrix.report import terminal

        terminalreporter.section("kernel matrix")
        screen = terminal.Screen(
            file=pytest_internals.output(terminalreporter),
            force_terminal=terminalreporter.hasmarkup or None,
            width=None if terminalreporter.hasmarkup else terminal.log_width(self._judged),
        )
        screen.print(terminal.render_table(self._judged, self._plan.facts.releases, self._plan.facts.loaders))
        differences = comparison.baseline_lines(self._changes, terminal.LISTED)
        for line in [*terminal.red_lines(self._judged), matrix.summary_line(self._judged.cells), *differences]:
            terminalreporter.write_line(line)
        records = self._times.records()
        notes = [f"{record.kernel}: {record.note}" for record in records if record.note]
        for note in [*self._plan.notes, *self._notes, *dict.fromkeys(notes), self._unwritten]:
            if note:
                terminalreporter.write_line(f"note: {note}")
        if records:
            guests = f"{summary(records)}; a fresh one per {self._config.option.fresh}"
            terminalreporter.write_line(f"{guests}; {preparation.saved_guests()}")
        terminalreporter.write_line(f"{self._plan.facts.accelerator}; results in {self._run.path}")
