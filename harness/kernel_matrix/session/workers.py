"""The life of guests: each is an xdist worker, whose "python" is its relay.

What a worker is sent, what happens to it when its guest has run everything or has died, and which kernel gets another
guest when a slot is free (`kernel_matrix.shared.channel.division`). Not here: the tests' reports
(`kernel_matrix.session.controller`).
"""

from __future__ import annotations

import shlex
import sys
from collections import Counter

import execnet
import pytest
from xdist.dsession import DSession
from xdist.workermanage import WorkerController

from kernel_matrix.plan import preparation, sharding
from kernel_matrix.plan.sharding import Unit
from kernel_matrix.remote import guest_hosts
from kernel_matrix.report import run_folder
from kernel_matrix.session import events, reports
from kernel_matrix.session.display.output import Outputs
from kernel_matrix.session.nodes import kernel_of, worker_of
from kernel_matrix.session.scheduler import KernelScheduling
from kernel_matrix.shared import pytest_internals, wire
from kernel_matrix.shared.channel import division, worker_input
from kernel_matrix.shared.channel.division import WorkerId
from kernel_matrix.shared.channel.protocol import DESELECTED, SPENT
from kernel_matrix.shared.channel.worker_input import WORKER_KEY, WorkerInput
from kernel_matrix.shared.errors import HarnessError
from kernel_matrix.shared.outcomes import expect
from kernel_matrix.shared.outcomes.cells import BOOT, Outcome
from kernel_matrix.shared.project import COMPILING_LOADERS
from kernel_matrix.vm.ending import End, Ending
from kernel_matrix.vm.guests import Guests

#: a kernel is given up when so many guests of one worker have died in a row outside every test
_STRIKES = 2


class WorkersPlugin:
    """Hooks of the controller for guests; it reports what happens to them as `events`."""

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
        self._plan = plan
        self._run = run
        self._hosts = hosts
        self._outputs = outputs
        self._guests = {guest.kernel: guest for guest in plan.guests}
        self._scheduling = scheduling
        pieces = sharding.pieces(plan.weights, plan.piece_path)
        self._first_pieces = division.first_pieces(sharding.weigh_pieces(plan.weights, pieces))
        #: workers that have a guest, or will
        self._workers = {WorkerId(kernel) for kernel in self._guests}
        self._times = times
        self._strikes: Counter[WorkerId] = Counter()
        #: worker -> why its last guest is not replaced: a stand-in takes its place
        self._gone: dict[WorkerId, str] = {}
        self._channels: dict[WorkerId, execnet.Channel] = {}

    def _emit(self, event: events.GuestEvent) -> None:
        self._config.hook.pytest_matrix_guest(event=event)

    @pytest.hookimpl(tryfirst=True)
    def pytest_xdist_make_scheduler(self) -> KernelScheduling:
        """Replace xdist's scheduler."""
        return self._scheduling

    def pytest_xdist_setupnodes(self) -> None:
        """Keep xdist from sending workers the folder of this run's temporary files: no guest has that folder."""
        pytest_internals.keep_temporary_folders_from_workers(self._config)

    @pytest.hookimpl(tryfirst=True)
    def pytest_xdist_newgateway(self, gateway: execnet.Gateway) -> None:
        """Answer xdist's first question in place of a guest, which may not have booted yet."""
        pytest_internals.answer_for(gateway)

    def pytest_configure_node(self, node: WorkerController) -> None:
        """Send a worker its input: its kernel, and what it runs there."""
        worker = worker_of(node)
        kernel = worker.kernel
        if worker not in self._gone and (gone := self._hosts.replaced(kernel)):
            self._gone[worker] = gone
            self._lose_kernel(kernel, gone)
            self._emit(events.OutsideTest(kernel, BOOT, expect.Decision(Outcome.LOST, gone)))
        option = self._config.option
        work = WorkerInput(
            facts=self._plan.guest_facts(self._guests[kernel]),
            gone=self._gone.get(worker, ""),
            arguments=self._guests[kernel].arguments,
            begins=self._first_pieces.get(kernel, ""),
            command=tuple(option.command),
            timeout=option.command_timeout,
            keep=bool(option.keep_guest),
        )
        # nothing that differs from run to run: a worker with the same input may have been saved
        node.workerinput.update(workerid="guest", workercount=1, testrunuid="matrix", mainargv=["pytest"])
        node.workerinput[WORKER_KEY] = worker_input.pack(work, self._channel(node, work))
        # xdist sends the controller's sys.path to a popen worker; a guest has its own
        if not work.gone:
            node.gateway.spec.popen = None

    def _channel(self, node: WorkerController, work: WorkerInput) -> execnet.Channel | None:
        """Return the channel for a command's output, or the heartbeat of a guest that is kept or is long silent."""
        compiles = any(not why for name, why in work.facts.loaders.items() if name in COMPILING_LOADERS)
        if not (work.command or work.keep or compiles or work.facts.commands):
            return None
        kernel = kernel_of(node)
        # stored: a channel without a reference is closed
        channel: execnet.Channel = node.gateway.newchannel()
        self._channels[worker_of(node)] = channel
        channel.setcallback(lambda data: self._outputs.receive(kernel, data))
        return channel

    @pytest.hookimpl(tryfirst=True)
    def pytest_testnodedown(self, node: WorkerController, error: object | None) -> None:
        """Release a guest that has run everything; otherwise decide whether its worker gets another."""
        node.gateway.spec.popen = True
        worker = worker_of(node)
        self._times.ends(worker, alive=error is None)
        if error is not None and worker in self._gone:
            # xdist would replace it forever
            pytest.exit(f"the stand-in for kernel {worker} failed: {error}", returncode=HarnessError.exit_status)
        gone = self._hosts.gone(node)
        if error is None:
            self._released(node, worker, gone)
        else:
            self._died(node, worker, gone)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Record when a guest's first test starts; start another guest if a slot is free."""
        if kernel := expect.kernel_of_argument(nodeid, self._guests):
            self._times.test_starts(self._scheduling.owner(kernel, nodeid))
        if not self._stops():
            self._fill()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Use a guest no longer in whose kernel a test has left something."""
        node: WorkerController = report.node
        if any(key == SPENT for key, _ in report.user_properties):
            self._scheduling.retire(node)

    def _released(self, node: WorkerController, worker: WorkerId, gone: str) -> None:
        """Start another guest for a worker with tests left; a worker that is done leaves its slot to others."""
        if left_out := getattr(node, "workeroutput", {}).get(DESELECTED):
            self._emit(events.Deselected(worker.kernel, tuple(left_out)))
        node.gateway.exit()
        over = worker in self._gone or not self._scheduling.remaining(worker)
        if not over and gone:
            self._lose_kernel(worker.kernel, gone)
        elif not over and self._continues(node):
            # as xdist does for a worker that died
            pytest_internals.replace_node(self._session_of_xdist(), node)
        else:
            self._workers.discard(worker)
            # its number may be used again
            self._gone.pop(worker, None)
            del self._strikes[worker]
            if not gone and self._continues(node):
                self._fill()

    def _died(self, node: WorkerController, worker: WorkerId, gone: str) -> None:
        """Decide whether xdist replaces a dead guest by another guest or by a stand-in."""
        kernel = worker.kernel
        ending = Ending(kernel, End.EXITED, gone, self._guests[kernel].release) if gone else self._read_ending(worker)
        self._emit(events.GuestDied(worker, ending))
        running = self._scheduling.current(node)
        if running is None:
            self._strikes[worker] += 1
            why = reports.describe_death(ending, None, self._run.console(kernel))
            self._emit(events.OutsideTest(kernel, BOOT, expect.Decision(reports.outcome_of(ending), why)))
        else:
            self._strikes[worker] = 0
        remaining = self._scheduling.remaining(worker)
        if gone:
            self._give_up(node, gone)
            self._lose_kernel(kernel, gone)
        elif self._strikes[worker] >= _STRIKES:
            self._give_up(node, f"its guest died {_STRIKES} times in a row outside every test")
            self._scheduling.give_up(kernel)
        elif running is not None and remaining == 1:
            self._give_up(node, "nothing left to run")

    def _fill(self) -> None:
        """Start another guest of a kernel with many tests left while a slot is free that no guest waits for."""
        while piece := division.longest(self._unclaimed()):
            worker = division.free(piece.kernel, self._workers)
            self._workers.add(worker)
            self._scheduling.claim(worker, piece)
            spec = execnet.XSpec(f"execmodel=main_thread_only//{self._hosts.relay(self._guests[piece.kernel], worker)}")
            pytest_internals.add_node(self._session_of_xdist(), spec)

    def _unclaimed(self) -> dict[division.Piece, float]:
        """Return the pieces that no worker has started, of kernels with a free slot, and the seconds of each."""
        if not self._plan.weights:
            return {}
        running = [worker.kernel for worker in self._workers]
        free = {kernel: self._hosts.has_slot(kernel, running) for kernel in self._guests}
        if not any(free.values()):
            return {}
        weights = self._plan.weights
        return {
            piece: sum(weights.get(Unit(piece.kernel, file), 0.0) for file in files)
            for piece, files in self._scheduling.unclaimed().items()
            if free[piece.kernel]
        }

    def _session_of_xdist(self) -> DSession:
        return pytest_internals.dsession(self._config)

    def _continues(self, node: WorkerController) -> bool:
        """Whether the run continues after what happened in a guest (-x)."""
        output = node.workeroutput
        return not (self._stops() or output["shouldfail"] or output["shouldstop"])

    def _stops(self) -> bool:
        """Whether the run is to stop (-x)."""
        return pytest_internals.stops(self._session_of_xdist())

    def _give_up(self, node: WorkerController, why: str) -> None:
        # xdist replaces every worker that died: the replacement is a plain Python that collects nothing
        self._gone[worker_of(node)] = why
        node.gateway.spec.python = shlex.quote(sys.executable)
        node.gateway.spec.via = None

    def _lose_kernel(self, kernel: str, why: str) -> None:
        """Give up a kernel whose machine is gone: its tests are not moved to another machine."""
        self._emit(events.KernelLost(kernel, why))
        self._scheduling.give_up(kernel)

    def _read_ending(self, worker: WorkerId) -> Ending:
        try:
            return wire.decode(self._hosts.ending(self._guests[worker.kernel].of_worker(worker)), Ending)
        except (OSError, ValueError, HarnessError) as error:
            return Ending(kernel=worker.kernel, end=End.EXITED, reason=f"its relay was killed ({error})")
