"""Each kernel runs its own list: the xdist scheduler of the matrix.

xdist's own schedulers share one list between workers, or (``--dist each``) wait for all workers and end the session
with a KeyError when one dies in its last test. Here a kernel starts when its own guest has collected, and a guest
that replaces a dead one goes on where that one stopped, without the test that killed it.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from xdist.workermanage import WorkerController

#: tests that a node has at a time: the one it runs, the next one (it does not begin without knowing that), and one
#: more so that it never waits for the controller; after -x it has no others left to run
_AHEAD = 3


class Fresh(enum.StrEnum):
    """How long a guest is used."""

    #: for all tests of its kernel
    KERNEL = "kernel"
    #: for the tests of one file
    FILE = "file"
    #: for one test
    TEST = "test"

    def share(self, nodeids: Sequence[str]) -> Sequence[str]:
        """Return what one guest runs of the node ids that are left."""
        if self is Fresh.KERNEL or not nodeids:
            return nodeids
        if self is Fresh.TEST:
            return nodeids[:1]
        file = nodeids[0].partition("::")[0]
        return [nodeid for nodeid in nodeids if nodeid.partition("::")[0] == file]


class KernelScheduling:
    """Implements ``xdist.scheduler.Scheduling``.

    ``kernel_of`` names a node's kernel; ``kernels`` are those that must have run for the session to be finished.
    """

    def __init__(
        self, kernels: Iterable[str], kernel_of: Callable[[WorkerController], str], fresh: Fresh = Fresh.KERNEL
    ) -> None:
        self._kernel_of = kernel_of
        self._fresh = fresh
        #: kernel -> node ids in the order of its guest's collection, once collected
        self._collections: dict[str, list[str]] = {}
        #: kernel -> node ids that have not run yet; a kernel that has not collected is None
        self._todo: dict[str, list[str] | None] = dict.fromkeys(kernels)
        self._given_up: set[str] = set()
        #: node -> the index -> node id of what it was sent and has not finished, in running order
        self._running: dict[WorkerController, dict[int, str]] = {}
        #: node -> what it will be sent, the next one first
        self._waiting: dict[WorkerController, deque[tuple[int, str]]] = {}
        self._ready: list[tuple[WorkerController, list[str]]] = []

    @property
    def nodes(self) -> list[WorkerController]:
        """The nodes that are up."""
        return list(self._running)

    @property
    def collection_is_completed(self) -> bool:
        """Always: a kernel waits for no other."""
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

    def remaining(self, kernel: str) -> int | None:
        """Return how many tests that kernel has not run yet; None before its first collection."""
        todo = self._todo[kernel]
        return None if todo is None else len(todo)

    def next_share(self, kernel: str) -> Sequence[str]:
        """Return what that kernel's next guest will run; empty before the kernel's first collection."""
        return self._fresh.share(self._todo[kernel] or ())

    def current(self, node: WorkerController) -> str | None:
        """Return the test that node is running, None when it runs none or is not up."""
        return next(iter(self._running.get(node, {}).values()), None)

    def collected(self, kernel: str) -> Sequence[str]:
        """Return the node ids that kernel's guest collected, empty before that."""
        return tuple(self._collections.get(kernel, ()))

    @property
    def foreseen(self) -> int:
        """How many tests the run has: a kernel that has not collected yet is taken for the longest that has."""
        known = [len(collection) for collection in self._collections.values()]
        unknown = len(self._todo) - len(known) - len(self._given_up - self._collections.keys())
        return sum(known) + unknown * max(known, default=0)

    def give_up(self, kernel: str) -> None:
        """Expect nothing more of that kernel: its guest does not come up."""
        self._given_up.add(kernel)

    def add_node(self, node: WorkerController) -> None:
        """Note a node that is up and collects."""
        self._running[node] = {}
        self._waiting[node] = deque()

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        """Take what a node collected: its kernel's list the first time, later the numbering of what is left."""
        kernel = self._kernel_of(node)
        if self._todo[kernel] is None:
            self._collections[kernel] = list(collection)
            self._todo[kernel] = list(collection)
        self._ready.append((node, list(collection)))

    def schedule(self) -> None:
        """Send every node that has collected the first of its kernel's tests."""
        for node, collection in self._ready:
            wanted = set(self.next_share(self._kernel_of(node)))
            self._waiting[node].extend(item for item in enumerate(collection) if item[1] in wanted)
            self._send(node)
        self._ready.clear()

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:  # noqa: ARG002 - xdist's signature
        """Note that a node has finished a test, and send it another."""
        self._done(node, item_index)
        self._send(node)

    def remove_node(self, node: WorkerController) -> str | None:
        """Forget a node; return the test in which it died, None when it was running none.

        Raises KeyError for a node that was never up, as xdist expects.
        """
        first = next(iter(self._running[node].items()), None)
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
        """Keep a node supplied, and tell it to end when nothing is left for it (it was told already after -x)."""
        waiting, running = self._waiting[node], self._running[node]
        if node.shutting_down:
            return
        batch = dict(waiting.popleft() for _ in range(min(_AHEAD - len(running), len(waiting))))
        running.update(batch)
        if batch:
            node.send_runtest_some(list(batch))
        if not waiting:
            node.shutdown()

    def _done(self, node: WorkerController, index: int) -> None:
        nodeid = self._running[node].pop(index)
        todo = self._todo[self._kernel_of(node)]
        if todo is not None:
            todo.remove(nodeid)
