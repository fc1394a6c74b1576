"""Each kernel runs its own list."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdist.workermanage import WorkerController

from harness.scheduler import Fresh, KernelScheduling


@dataclass(eq=False)
class Node:
    """Stands in for xdist's WorkerController."""

    kernel: str
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


def make(*kernels: str, fresh: Fresh = Fresh.KERNEL) -> tuple[KernelScheduling, Any]:
    scheduling = KernelScheduling(kernels, lambda node: cast("Node", node).kernel, fresh)

    def up(kernel: str, tests: list[str]) -> WorkerController:
        node = cast("WorkerController", Node(kernel))
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


def test_a_replacement_goes_on_after_the_test_that_killed_the_guest() -> None:
    scheduling, up = make("a")
    node = up("a", ["t1", "t2", "t3"])
    scheduling.mark_test_complete(node, 0)
    assert scheduling.remove_node(node) == "t2"
    assert scheduling.remaining("a") == 1
    assert not scheduling.tests_finished
    node = up("a", ["t1", "t2", "t3"])
    assert sent(node) == [2]
    scheduling.mark_test_complete(node, 2)
    assert scheduling.tests_finished


def test_a_node_that_was_never_up_is_a_key_error_as_xdist_expects() -> None:
    scheduling, _ = make("a")
    with pytest.raises(KeyError):
        scheduling.remove_node(cast("WorkerController", Node("a")))


@given(st.lists(st.sampled_from(["done", "crash"]), min_size=1, max_size=30))
def test_every_test_runs_exactly_once_whatever_dies(fates: list[str]) -> None:
    tests = [f"t{number}" for number in range(len(fates))]
    scheduling, up = make("a")
    ran: list[str] = []
    node = up("a", tests)
    for fate in fates:
        index = sent(node)[0]
        ran.append(tests[index])
        if fate == "done":
            sent(node).pop(0)
            scheduling.mark_test_complete(node, index)
        else:
            assert scheduling.remove_node(node) == tests[index]
            node = up("a", tests)
    assert ran == tests
    assert scheduling.tests_finished


def test_progress_takes_a_kernel_that_has_not_collected_for_the_longest_that_has() -> None:
    scheduling, up = make("a", "b", "c")
    assert scheduling.foreseen == 0
    up("a", ["1", "2", "3"])
    assert scheduling.foreseen == 9
    up("b", ["1"])
    assert scheduling.foreseen == 3 + 1 + 3
    scheduling.give_up("c")
    assert scheduling.foreseen == 3 + 1


def test_a_node_has_few_tests_ahead_and_gets_none_once_it_is_told_to_end() -> None:
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
    assert scheduling.next_share("a") == ()
    for share in shares:
        assert not scheduling.tests_finished
        node = up("a", tests)
        assert [tests[index] for index in sent(node)] == share
        assert cast("Node", node).ended
        for index in list(sent(node)):
            scheduling.mark_test_complete(node, index)
        assert scheduling.remove_node(node) is None
    assert scheduling.tests_finished
