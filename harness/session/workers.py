"""Guests come and go: each is an xdist worker, whose "python" is its relay.

What a kernel is told, what becomes of a lane when its guest has run everything or has died, and which kernel gets
another guest when there is room (`harness.shared.lanes`). What the tests of a guest find is for
`harness.session.controller`.
"""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Callable

import execnet
import pytest
from execnet.gateway import RInfo
from xdist.dsession import DSession
from xdist.workermanage import WorkerController

from harness.plan import preparation, sharding
from harness.plan.sharding import Unit
from harness.remote import places
from harness.report import run_folder
from harness.session import reports
from harness.session.output import Outputs
from harness.session.scheduler import Fresh, KernelScheduling
from harness.shared import expect, lanes, wire
from harness.shared.cells import BOOT, Outcome
from harness.shared.ending import End, Ending
from harness.shared.errors import HarnessError
from harness.shared.lanes import Lane
from harness.shared.protocol import ARGUMENTS, BEGINS, COMMAND, DESELECTED, KEEP, OUTPUT, TIMEOUT, WORKER_KEY
from harness.vm.guests import Guests

#: a kernel is given up when one guest after another has died that often in a lane without having run a test
_STRIKES = 2


def kernel_of(node: WorkerController) -> str:
    """Return the kernel of an xdist worker."""
    name: str = node.gateway.spec.kernel
    return name


def _lane_of(node: WorkerController) -> Lane:
    return Lane(kernel_of(node), int(node.gateway.spec.lane))


class CrewPlugin:
    """Hooks of the controller that have to do with guests.

    ``record`` makes a cell of what a guest did outside every test.
    """

    def __init__(
        self,
        config: pytest.Config,
        plan: preparation.Plan,
        run: run_folder.RunDirectory,
        place: places.Place,
        outputs: Outputs,
        record: Callable[[str, str, expect.Decision], None],
    ) -> None:
        self._config = config
        self._plan = plan
        self._run = run
        self._place = place
        self._outputs = outputs
        self._record = record
        self._guests = {guest.kernel: guest for guest in plan.guests}
        self.scheduling = KernelScheduling(self._guests, _lane_of, Fresh(config.option.fresh), self._whole)
        pieces = sharding.pieces(plan.weights, self._whole)
        self._beginnings = lanes.beginnings(sharding.weigh_pieces(plan.weights, pieces))
        #: those that have a guest, or will
        self._lanes = {Lane(kernel) for kernel in self._guests}
        self.times = Guests(plan.folder)
        self._strikes: Counter[Lane] = Counter()
        #: lane -> why its last guest is not replaced: it has a stand-in
        self._gone: dict[Lane, str] = {}
        #: kernel -> why its machine is gone
        self.lost: dict[str, str] = {}
        #: kernel -> node ids that -k or -m left out there
        self.deselected: dict[str, set[str]] = {kernel: set() for kernel in self._guests}
        self._endings: dict[Lane, Ending] = {}
        self._channels: dict[str, execnet.Channel] = {}

    def _whole(self, file: str) -> str:
        return self._plan.whole.get(file, file)

    def ending(self, node: WorkerController) -> Ending:
        """Return how the guest of a worker that has died ended."""
        return self._endings[_lane_of(node)]

    @pytest.hookimpl(tryfirst=True)
    def pytest_xdist_make_scheduler(self) -> KernelScheduling:
        """Replace xdist's scheduler."""
        return self.scheduling

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
            BEGINS: self._beginnings.get(kernel, ""),
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
        kernel = kernel_of(node)
        # kept: a channel that nobody holds is closed
        self._channels[kernel] = channel = node.gateway.newchannel()
        channel.setcallback(lambda data: self._outputs.take(kernel, data))
        return {**told, OUTPUT: channel}

    @pytest.hookimpl(tryfirst=True)
    def pytest_testnodedown(self, node: WorkerController, error: object | None) -> None:
        """Let a guest go that has run everything; otherwise decide whether its lane gets another."""
        node.gateway.spec.popen = True
        lane = _lane_of(node)
        self.times.ends(lane, alive=error is None)
        if error is not None and lane in self._gone:
            # xdist would replace it again and again
            pytest.exit(f"the stand-in for kernel {lane} failed: {error}", returncode=HarnessError.exit_status)
        gone = self._place.gone(node)
        if error is None:
            self._released(node, lane, gone)
        else:
            self._died(node, lane, gone)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Take the time of a guest's first test; what is left of the machine may be for one more guest."""
        if kernel := expect.kernel_of_argument(nodeid, self._guests):
            self.times.test_starts(self.scheduling.owner(kernel, nodeid))
        if not self._stops():
            self._fill()

    def _released(self, node: WorkerController, lane: Lane, gone: str) -> None:
        """Give a lane another guest when it has tests left; when it is done, there is room."""
        self.deselected[lane.kernel].update(getattr(node, "workeroutput", {}).get(DESELECTED, ()))
        node.gateway.exit()
        over = lane in self._gone or not self.scheduling.remaining(lane)
        if not over and gone:
            self._lose(lane.kernel, gone)
        elif not over and self._goes_on(node):
            # what xdist itself does for a worker that died
            self._session_of_xdist()._clone_node(node)  # noqa: SLF001
        else:
            self._lanes.discard(lane)
            # its number may be used again
            self._gone.pop(lane, None)
            del self._strikes[lane]
            if not gone and self._goes_on(node):
                self._fill()

    def _died(self, node: WorkerController, lane: Lane, gone: str) -> None:
        """Decide whether what xdist puts in a dead guest's place is another guest or a stand-in."""
        kernel = lane.kernel
        last = Ending(kernel, End.EXITED, gone, self._guests[kernel].release) if gone else self._read_ending(lane)
        self._endings[lane] = last
        running = self.scheduling.current(node)
        if running is None:
            self._strikes[lane] += 1
            why = reports.describe_death(last, None, self._run.console(kernel))
            self._record(kernel, BOOT, expect.Decision(reports.outcome_of(last), why))
        else:
            self._strikes[lane] = 0
        remaining = self.scheduling.remaining(lane)
        if gone:
            self._give_up(node, gone)
            self._lose(kernel, gone)
        elif self._strikes[lane] >= _STRIKES:
            self._give_up(node, f"its guest died {_STRIKES} times in a row outside every test")
            self.scheduling.give_up(kernel)
        elif running is not None and remaining == 1:
            self._give_up(node, "nothing left to run")

    def _fill(self) -> None:
        """Where there is room that no guest waits for, let a kernel with much left have another."""
        while piece := lanes.longest(self._unclaimed()):
            lane = lanes.free(piece.kernel, self._lanes)
            self._lanes.add(lane)
            self.scheduling.claim(lane, piece)
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
            for piece, files in self.scheduling.unclaimed().items()
            if rooms[piece.kernel]
        }

    def _session_of_xdist(self) -> DSession:
        session: DSession = self._config.pluginmanager.getplugin("dsession")
        return session

    def _goes_on(self, node: WorkerController) -> bool:
        """Whether nothing has happened in a guest that stops the run (-x)."""
        output = node.workeroutput
        return not (self._stops() or output["shouldfail"] or output["shouldstop"])

    def _stops(self) -> bool:
        """Whether the run is to stop (-x)."""
        session = self._session_of_xdist()
        return bool(session.shuttingdown or session.shouldstop)

    def _give_up(self, node: WorkerController, why: str) -> None:
        # xdist replaces every worker that died: let the replacement be a plain Python that collects nothing
        self._gone[_lane_of(node)] = why
        node.gateway.spec.python = shlex.quote(sys.executable)
        node.gateway.spec.via = None

    def _lose(self, kernel: str, why: str) -> None:
        """Expect nothing more of a kernel whose machine is gone: its tests are not moved to another."""
        self.lost[kernel] = why
        self.scheduling.give_up(kernel)

    def _read_ending(self, lane: Lane) -> Ending:
        try:
            return wire.decode(self._place.ending(self._guests[lane.kernel].of_lane(lane)), Ending)
        except (OSError, ValueError, HarnessError) as error:
            return Ending(kernel=lane.kernel, end=End.EXITED, reason=f"its relay was killed ({error})")
