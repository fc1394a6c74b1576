"""Each kernel runs its own list: the xdist scheduler of the matrix.

xdist's own schedulers share one list between workers, or (``--dist each``) wait for all workers and end the session
with a KeyError when one dies in its last test. Here a kernel starts when its own guest has collected, and a guest
that replaces a dead one continues after the test that killed the dead one. A kernel has more than one guest where the
machine has free slots (`kernel_matrix.shared.channel.division`): no test is ever sent to two of them.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from xdist.workermanage import WorkerController

from kernel_matrix.shared.channel.division import Piece, WorkerId
from kernel_matrix.shared.outcomes.features import VARIANT

#: tests that a node has at a time: the one it runs, the next one (a node does not start a test before it knows the
#: next one), and one more so that it never waits for the controller; not more, as a node still runs them after -x
_AHEAD = 3


class Fresh(enum.StrEnum):
    """How long one guest is used."""

    #: for all of its kernel's tests that it is sent (`kernel_matrix.shared.channel.division`)
    KERNEL = "kernel"
    #: for the tests of one file
    FILE = "file"
    #: for one test
    TEST = "test"

    def share(self, nodeids: Sequence[str]) -> Sequence[str]:
        """Return the node ids, of those that are left, that one guest runs."""
        if self is Fresh.KERNEL or not nodeids:
            return nodeids
        if self is Fresh.TEST:
            return nodeids[:1]
        return [nodeid for nodeid in nodeids if file_of(nodeid) == file_of(nodeids[0])]


def file_of(nodeid: str) -> str:
    """Return the file of a node id."""
    return nodeid.partition("::")[0]


class KernelScheduling:
    """Implements ``xdist.scheduler.Scheduling``.

    ``worker_of`` returns a node's worker; the session is finished when all ``kernels`` have run; ``piece_path`` returns
    the file or folder that a file is not divided from.
    """

    def __init__(
        self,
        kernels: Iterable[str],
        worker_of: Callable[[WorkerController], WorkerId],
        fresh: Fresh = Fresh.KERNEL,
        piece_path: Callable[[str], str] = str,
    ) -> None:
        self._worker_of = worker_of
        self._fresh = fresh
        self._piece_path = piece_path
        #: kernel -> node ids in the order of its guest's collection, once collected
        self._collections: dict[str, list[str]] = {}
        #: kernel -> node ids that have not run yet; a kernel that has not collected is None
        self._todo: dict[str, list[str] | None] = dict.fromkeys(kernels)
        #: piece -> the worker that has started it, or will
        self._claims: dict[Piece, WorkerId] = {}
        self._given_up: set[str] = set()
        #: node -> index -> node id of the tests that it was sent and has not finished, in running order
        self._running: dict[WorkerController, dict[int, str]] = {}
        #: node whose guest is not used for other tests -> the index of its last one
        self._last: dict[WorkerController, int] = {}
        #: node -> the tests that it may be sent, the next one first
        self._waiting: dict[WorkerController, deque[tuple[int, str]]] = {}
        self._ready: list[tuple[WorkerController, list[str]]] = []

    @property
    def nodes(self) -> list[WorkerController]:
        """The nodes that are up."""
        return list(self._running)

    @property
    def collection_is_completed(self) -> bool:
        """Always true: no kernel waits for another."""
        return True

    @property
    def tests_finished(self) -> bool:
        """Whether every kernel has collected and has nothing left, or was given up."""
        finished = all(todo == [] or kernel in self._given_up for kernel, todo in self._todo.items())
        return finished and not self.has_pending

    @property
    def has_pending(self) -> bool:
        """Whether a node has tests that it has not finished."""
        return any(self._running.values())

    def remaining(self, worker: WorkerId) -> int | None:
        """Return how many tests that worker still has to run; None before its kernel's first collection."""
        return None if self._todo[worker.kernel] is None else len(self._remaining(worker))

    def next_share(self, worker: WorkerId) -> Sequence[str]:
        """Return the node ids that worker's next guest will run; empty before its kernel's first collection."""
        return self._fresh.share(self._remaining(worker))

    def unclaimed(self) -> dict[Piece, frozenset[str]]:
        """Return the pieces that no worker has started, with their files, of the kernels that have collected."""
        files: dict[Piece, set[str]] = {}
        for kernel in self._todo.keys() - self._given_up:
            for nodeid in self._todo[kernel] or ():
                if (piece := self._piece(kernel, nodeid)) not in self._claims:
                    files.setdefault(piece, set()).add(file_of(nodeid))
        return {piece: frozenset(files[piece]) for piece in sorted(files)}

    def claim(self, worker: WorkerId, piece: Piece) -> None:
        """Reserve what is left of a piece for that worker."""
        self._claims[piece] = worker

    def owner(self, kernel: str, nodeid: str) -> WorkerId:
        """Return the worker that has started, or will start, that test's piece."""
        return self._claims.get(self._piece(kernel, nodeid), WorkerId(kernel))

    def current(self, node: WorkerController) -> str | None:
        """Return the test that node is running, None when it runs none or is not up."""
        return next(iter(self._running.get(node, {}).values()), None)

    def collected(self, kernel: str) -> Sequence[str]:
        """Return the node ids that kernel's guest collected, empty before that."""
        return tuple(self._collections.get(kernel, ()))

    @property
    def expected_tests(self) -> int:
        """How many tests the run has.

        A guest without a collection yet counts as many as the longest with the same variant, which is short.
        """
        longest: dict[str, int] = {}
        for guest, collection in self._collections.items():
            variant = guest.partition(VARIANT)[2]
            longest[variant] = max(longest.get(variant, 0), len(collection))
        uncollected = self._todo.keys() - self._collections.keys() - self._given_up
        counts = [len(collection) for collection in self._collections.values()]
        return sum(counts) + sum(longest.get(guest.partition(VARIANT)[2], 0) for guest in uncollected)

    def give_up(self, kernel: str) -> None:
        """Expect no more tests of that kernel: its guest does not boot."""
        self._given_up.add(kernel)

    def add_node(self, node: WorkerController) -> None:
        """Add a node that is up and collects."""
        self._running[node] = {}
        self._waiting[node] = deque()

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        """Store what a node collected: first its kernel's list, later the indices of the tests that are left."""
        kernel = self._worker_of(node).kernel
        if self._todo[kernel] is None:
            self._collections[kernel] = list(collection)
            self._todo[kernel] = list(collection)
        self._ready.append((node, list(collection)))

    def schedule(self) -> None:
        """Send every node that has collected the first of its worker's tests."""
        for node, collection in self._ready:
            share = set(self.next_share(self._worker_of(node)))
            self._waiting[node].extend(item for item in enumerate(collection) if item[1] in share)
            self._send(node)
        self._ready.clear()

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:  # noqa: ARG002 - xdist's signature
        """Remove a test that a node has finished, and send it another."""
        self._done(node, item_index)
        self._send(node)

    def retire(self, node: WorkerController) -> None:
        """Send a node no more tests: the one that it runs is its last, and those behind it are left for another guest.

        Its worker completes those without running them (`kernel_matrix.guest.pytest.spent`).
        """
        if node not in self._last and (running := self._running.get(node)):
            self._last[node] = next(iter(running))
            self._waiting[node].clear()

    def remove_node(self, node: WorkerController) -> str | None:
        """Remove a node; return the test in which it died, None when it was running none.

        Raises KeyError for a node that was never up, as xdist expects.
        """
        last = self._last.pop(node, None)
        first = next((item for item in self._running[node].items() if last in {None, item[0]}), None)
        if first is not None:
            self._done(node, first[0])
        del self._running[node], self._waiting[node]
        return None if first is None else first[1]

    def mark_test_pending(self, item: str) -> None:
        """Not used: a test that killed a guest is not run again."""
        raise NotImplementedError

    def remove_pending_tests_from_node(self, node: WorkerController, indices: Sequence[int]) -> None:
        """Not used: no test is taken from one kernel for another."""
        raise NotImplementedError

    def _send(self, node: WorkerController) -> None:
        """Send a node its next tests, and shut it down when it has no more (after -x it is shut down already)."""
        running = self._running[node]
        if node.shutting_down:
            return
        batch: dict[int, str] = {}
        while len(running) + len(batch) < _AHEAD and (item := self._next(node)):
            batch[item[0]] = item[1]
        running.update(batch)
        if batch:
            node.send_runtest_some(list(batch))
        if not self._skip(node):
            node.shutdown()

    def _next(self, node: WorkerController) -> tuple[int, str] | None:
        """Take a node's next test and claim its piece for the node's worker; None when there is no more."""
        waiting, worker = self._skip(node), self._worker_of(node)
        if not waiting:
            return None
        self.claim(worker, self._piece(worker.kernel, waiting[0][1]))
        return waiting.popleft()

    def _skip(self, node: WorkerController) -> deque[tuple[int, str]]:
        """Return the tests that wait for a node, without those that another worker has started in the meantime."""
        waiting, worker = self._waiting[node], self._worker_of(node)
        while waiting and self.owner(worker.kernel, waiting[0][1]) != worker:
            waiting.popleft()
        return waiting

    def _remaining(self, worker: WorkerId) -> list[str]:
        """Return the tests left for a worker: of the pieces it started, and for the first one of unstarted pieces."""
        return [nodeid for nodeid in self._todo[worker.kernel] or () if self.owner(worker.kernel, nodeid) == worker]

    def _piece(self, kernel: str, nodeid: str) -> Piece:
        return Piece(kernel, self._piece_path(file_of(nodeid)))

    def _done(self, node: WorkerController, index: int) -> None:
        nodeid = self._running[node].pop(index)
        if self._last.get(node, index) != index:
            return
        todo = self._todo[self._worker_of(node).kernel]
        if todo is not None:
            todo.remove(nodeid)
