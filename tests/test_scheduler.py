"""Each kernel runs its own list."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdist.workermanage import WorkerController

from kernel_matrix.session.scheduler import Fresh, KernelScheduling
from kernel_matrix.shared.channel.division import Piece, WorkerId


@dataclass(eq=False)
class Node:
    """Stands in for xdist's WorkerController."""

    kernel: str
    number: int = 1
    sent: list[int] = field(default_factory=list)
    ended: bool = False

    def send_runtest_some(self, indices: list[int]) -> None:
        assert not self.ended
        self.sent += indices

    def shutdown(self) -> None:
        self.ended = True

    @property
    def shutting_down(self) -> bool:
        return self.ended


def worker_of(node: WorkerController) -> WorkerId:
    stand_in = cast("Node", node)
    return WorkerId(stand_in.kernel, stand_in.number)


def whole(file: str) -> str:
    """All files of the folder "f" are one piece."""
    return "f" if file.startswith("f/") else file


def make(*kernels: str, fresh: Fresh = Fresh.KERNEL) -> tuple[KernelScheduling, Any]:
    scheduling = KernelScheduling(kernels, worker_of, fresh, whole)

    def up(kernel: str, tests: list[str], number: int = 1) -> WorkerController:
        node = cast("WorkerController", Node(kernel, number))
        scheduling.add_node(node)
        scheduling.add_node_collection(node, tests)
        scheduling.schedule()
        return node

    return scheduling, up


def sent(node: WorkerController) -> list[int]:
    return cast("Node", node).sent


def test_a_kernel_starts_when_its_own_guest_has_collected() -> None:
    scheduling, up = make("a", "b")
    node = up("a", ["t1", "t2"])
    assert sent(node) == [0, 1]
    scheduling.mark_test_complete(node, 0)
    scheduling.mark_test_complete(node, 1)
    assert not scheduling.tests_finished  # b has not even collected
    assert scheduling.remove_node(node) is None
    scheduling.give_up("b")
    assert scheduling.tests_finished


def test_a_replacement_continues_after_the_fatal_test() -> None:
    """A replacement goes on after the test that killed the guest."""
    scheduling, up = make("a")
    node = up("a", ["t1", "t2", "t3"])
    scheduling.mark_test_complete(node, 0)
    assert scheduling.remove_node(node) == "t2"
    assert scheduling.remaining(WorkerId("a")) == 1
    assert not scheduling.tests_finished
    node = up("a", ["t1", "t2", "t3"])
    assert sent(node) == [2]
    scheduling.mark_test_complete(node, 2)
    assert scheduling.tests_finished


def test_a_node_that_never_started_is_a_key_error() -> None:
    """This is what xdist expects of a scheduler."""
    scheduling, _ = make("a")
    with pytest.raises(KeyError):
        scheduling.remove_node(cast("WorkerController", Node("a")))


@given(st.lists(st.sampled_from(["done", "crash", "left", "left and crash"]), min_size=1, max_size=30))
def test_every_test_runs_exactly_once_whatever_dies(fates: list[str]) -> None:
    """Nor does a guest run another test that has something left in its kernel: it skips what it was sent."""
    tests = [f"t{number}" for number in range(len(fates))]
    scheduling, up = make("a")
    ran: list[str] = []
    node = up("a", tests)
    for fate in fates:
        index = sent(node)[0]
        ran.append(tests[index])
        if fate == "crash":
            assert scheduling.remove_node(node) == tests[index]
            node = up("a", tests)
            continue
        sent(node).pop(0)
        if fate == "done":
            scheduling.mark_test_complete(node, index)
            continue
        # with each report from the one that says so on
        scheduling.retire(node)
        scheduling.retire(node)
        scheduling.mark_test_complete(node, index)
        assert cast("Node", node).ended
        if fate == "left":
            for skipped in sent(node):
                scheduling.mark_test_complete(node, skipped)
        assert scheduling.remove_node(node) is None
        node = up("a", tests)
    assert ran == tests
    assert scheduling.tests_finished


def test_a_guest_that_dies_in_its_last_test_died_in_that() -> None:
    scheduling, up = make("a")
    node = up("a", ["t1", "t2", "t3"])
    scheduling.mark_test_complete(node, 0)
    scheduling.retire(node)
    assert scheduling.remove_node(node) == "t2"
    assert scheduling.next_share(WorkerId("a")) == ["t3"]


def test_progress_expects_the_most_of_uncollected_kernels() -> None:
    """A kernel that has not collected yet counts as many tests as the kernel with the most."""
    scheduling, up = make("a", "b", "c")
    assert scheduling.expected_tests == 0
    up("a", ["1", "2", "3"])
    assert scheduling.expected_tests == 9
    up("b", ["1"])
    assert scheduling.expected_tests == 3 + 1 + 3
    scheduling.give_up("c")
    assert scheduling.expected_tests == 3 + 1


def test_progress_expects_few_tests_of_a_variant() -> None:
    """As many as the variant has on another kernel; none before one has collected."""
    scheduling, up = make("a", "b", "a+lsm", "b+lsm")
    up("a", ["1", "2", "3"])
    assert scheduling.expected_tests == 3 + 3
    up("a+lsm", ["4"])
    assert scheduling.expected_tests == 3 + 3 + 1 + 1


def test_a_node_has_few_tests_ahead_and_none_after_shutdown() -> None:
    scheduling, up = make("a")
    node = up("a", [f"t{number}" for number in range(9)])
    assert sent(node) == [0, 1, 2]
    scheduling.mark_test_complete(node, 0)
    assert sent(node) == [0, 1, 2, 3]
    node.shutdown()  # xdist does after -x
    scheduling.mark_test_complete(node, 1)
    assert sent(node) == [0, 1, 2, 3]
    assert not scheduling.tests_finished


@pytest.mark.parametrize(
    ("fresh", "shares"),
    [
        (Fresh.KERNEL, [["x.py::1", "x.py::2", "y.py::1"]]),
        (Fresh.FILE, [["x.py::1", "x.py::2"], ["y.py::1"]]),
        (Fresh.TEST, [["x.py::1"], ["x.py::2"], ["y.py::1"]]),
    ],
)
def test_a_fresh_guest_gets_its_share(fresh: Fresh, shares: list[list[str]]) -> None:
    tests = ["x.py::1", "x.py::2", "y.py::1"]
    scheduling, up = make("a", fresh=fresh)
    assert not scheduling.next_share(WorkerId("a"))
    for share in shares:
        assert not scheduling.tests_finished
        node = up("a", tests)
        assert [tests[index] for index in sent(node)] == share
        assert cast("Node", node).ended
        for index in list(sent(node)):
            scheduling.mark_test_complete(node, index)
        assert scheduling.remove_node(node) is None
    assert scheduling.tests_finished


def run(scheduling: KernelScheduling, node: WorkerController, tests: list[str]) -> str:
    """Run a node's next test; return it."""
    index = sent(node).pop(0)
    scheduling.mark_test_complete(node, index)
    return tests[index]


def test_a_second_guest_runs_a_piece_that_the_first_omits() -> None:
    tests = ["x.py::1", "y.py::1", "y.py::2", "z.py::1", "z.py::2"]
    scheduling, up = make("a")
    first = up("a", tests)
    beside = WorkerId("a", 2)
    # the first one has been sent three tests: what they are of is begun
    assert scheduling.unclaimed() == {Piece("a", "z.py"): {"z.py"}}
    scheduling.claim(beside, Piece("a", "z.py"))
    assert scheduling.unclaimed() == {}
    assert (scheduling.remaining(WorkerId("a")), scheduling.remaining(beside)) == (3, 2)
    second = up("a", tests, number=2)
    assert cast("Node", second).ended
    assert [run(scheduling, second, tests) for _ in range(2)] == ["z.py::1", "z.py::2"]
    assert scheduling.remove_node(second) is None
    assert not cast("Node", first).ended
    assert [run(scheduling, first, tests) for _ in range(3)] == ["x.py::1", "y.py::1", "y.py::2"]
    assert cast("Node", first).ended
    assert scheduling.tests_finished


def test_a_replaced_second_guest_continues_its_piece_only() -> None:
    tests = ["x.py::1", "x.py::2", "x.py::3", "y.py::1", "y.py::2", "y.py::3"]
    scheduling, up = make("a")
    first = up("a", tests)
    beside = WorkerId("a", 2)
    scheduling.claim(beside, Piece("a", "y.py"))
    second = up("a", tests, number=2)
    assert run(scheduling, second, tests) == "y.py::1"
    assert scheduling.current(second) == "y.py::2"
    assert scheduling.remaining(beside) == 2
    assert scheduling.remove_node(second) == "y.py::2"
    assert scheduling.remaining(beside) == 1
    # the first one dies too: what is left of the other's piece is still not its own
    assert scheduling.remove_node(first) == "x.py::1"
    assert [tests[index] for index in sent(up("a", tests))] == ["x.py::2", "x.py::3"]
    assert [tests[index] for index in sent(up("a", tests, number=2))] == ["y.py::3"]


def test_files_of_a_folder_that_is_not_divided_are_one_piece() -> None:
    tests = ["x.py::1", "x.py::2", "x.py::3", "f/a.py::1", "f/b.py::1", "f/a.py::last"]
    scheduling, up = make("a")
    up("a", tests)
    assert scheduling.unclaimed() == {Piece("a", "f"): {"f/a.py", "f/b.py"}}
    scheduling.claim(WorkerId("a", 2), Piece("a", "f"))
    assert [tests[index] for index in sent(up("a", tests, number=2))] == tests[3:]


def test_an_uncollected_or_given_up_kernel_shares_no_tests() -> None:
    """A kernel that has not collected, or was given up, leaves no tests to other guests."""
    scheduling, up = make("a", "b")
    assert scheduling.unclaimed() == {}
    up("a", ["x.py::1", "x.py::2", "x.py::3", "y.py::1"])
    assert list(scheduling.unclaimed()) == [Piece("a", "y.py")]
    scheduling.give_up("a")
    assert scheduling.unclaimed() == {}


@pytest.mark.parametrize("fresh", list(Fresh))
@given(st.data())
def test_every_test_runs_once_in_its_files_order(fresh: Fresh, data: st.DataObject) -> None:
    """This holds on any number of guests."""
    files = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    tests = [f"{file}.py::{number}" for file, count in enumerate(files) for number in range(count)]
    scheduling, up = make("a", fresh=fresh)
    nodes = {WorkerId("a"): up("a", tests)}
    ran: list[tuple[WorkerId, str]] = []
    while not scheduling.tests_finished:
        pieces = list(scheduling.unclaimed())
        worker = next(worker for number in range(2, 9) if (worker := WorkerId("a", number)) not in nodes)
        if pieces and len(nodes) < 4 and data.draw(st.booleans()):
            scheduling.claim(worker, data.draw(st.sampled_from(pieces)))
            nodes[worker] = up("a", tests, number=worker.number)
        worker = data.draw(st.sampled_from(sorted(nodes)))
        node = nodes[worker]
        if sent(node):
            if data.draw(st.integers(0, 4)):
                ran.append((worker, run(scheduling, node, tests)))
                continue
            dead = scheduling.remove_node(node)
            assert dead is not None
            ran.append((worker, dead))
        else:
            assert cast("Node", node).ended
            assert scheduling.remove_node(node) is None
        del nodes[worker]
        if scheduling.remaining(worker):
            nodes[worker] = up("a", tests, number=worker.number)
    assert sorted(test for _, test in ran) == sorted(tests)
    for file in range(len(files)):
        of_file = [(worker, test) for worker, test in ran if test.startswith(f"{file}.py")]
        assert len({worker for worker, _ in of_file}) == 1
        assert [test for _, test in of_file] == sorted(test for _, test in of_file)
