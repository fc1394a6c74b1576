"""What a scenario's checks say of maps, variables and events: the types are an object's, the values a fake's."""

# ruff: noqa: ANN401 - values of C

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kernel_matrix.guest.bpf.foreign.scenarios import playing, stimulus
from kernel_matrix.guest.bpf.foreign.scenarios.playing import State
from kernel_matrix.guest.bpf.steps import XdpFlags
from kernel_matrix.shared.bpf import values
from kernel_matrix.shared.bpf.object_types import ObjectTypes
from kernel_matrix.shared.bpf.scenario import INTERFACE, PID, Check, Scenario, Step
from tests.test_c_values import types

__all__ = ["types"]

NAMES = {PID: 7, INTERFACE: 3}


class View(dict[Any, Any]):
    """A map; of a per-CPU one the values are lists."""

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, dict):
            key = tuple(key.items())
        value = super().__getitem__(key)
        return values.total(value) if isinstance(value, list) else value

    def each_cpu(self, key: Any) -> list[Any]:
        return list(super().__getitem__(key))


class Events:
    def __init__(self, events: list[dict[str, Any]], *, ordered: bool) -> None:
        self.events = events
        self.ordered = ordered

    def all(self, **where: Any) -> list[dict[str, Any]]:
        return [event for event in self.events if values.holds(where, event)]


class Obj:
    """An attached object, whose content is set by a test."""

    def __init__(self, types: ObjectTypes) -> None:
        self.types = types
        self.place = type("Place", (), {"interface": 3})
        self.maps: dict[str, View] = {}
        self.variables: dict[str, Any] = {}
        self.ring = Events([], ordered=True)
        self.last: Callable[[], object] = list
        self.unseen: dict[str, int] = {}

    def detach(self) -> None:
        self.last()

    def skipped(self) -> dict[str, int]:
        return self.unseen

    def map(self, name: str) -> View:
        return self.maps[name]

    def variable(self, name: str) -> Any:
        return self.variables[name]

    def events(self, name: str, struct: str) -> Events:
        assert (name, struct) == ("ring", "event")
        return self.ring


@pytest.fixture
def obj(types: ObjectTypes) -> Obj:
    return Obj(types)


def state(check: Check, obj: Obj) -> State:
    return State(check, obj)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("check", "line"),
    [
        (Check("map", "each", "value", 5, key=1), ""),
        (Check("map", "each", "value", 4, key=1), "each[1]: expected 4, is 5 (by processor: 2, 3)"),
        (Check("map", "each", "value", 3, key=1, cpu=1), ""),
        (Check("map", "each", "value", 5, key=1, cpu=1), "each[1] on processor 1: expected 5, is 3"),
        (Check("map", "each", "value", 0, key=2), "each[2]: expected 0, is absent (the keys are [1])"),
        (Check("map", "each", "absent", True, key=2), ""),
        (Check("map", "each", "absent", True, key=1), "each[1]: expected none, is 5"),
        (Check("map", "each", "keys", [1]), ""),
        (Check("map", "each", "keys", []), "keys of each: expected [], is [1]"),
        (Check("map", "each", "keys", [1, 2]), "keys of each: expected [1, 2], is [1]"),
        (Check("variable", "total", "value", "$pid"), ""),
        (Check("variable", "total", "value", "$ifindex"), "total: expected 3, is 7"),
    ],
)
def test_a_check_says_what_is_there_instead(obj: Obj, check: Check, line: str) -> None:
    obj.maps["each"] = View({1: [2, 3]})
    obj.variables["total"] = 7
    assert state(check, obj).wrong(NAMES) == line


def test_keys_are_compared_in_any_order(obj: Obj) -> None:
    obj.maps["each"] = View({3: [1], 1: [1], 2: [1]})
    assert state(Check("map", "each", "keys", [1, 2, 3]), obj).wrong(NAMES) == ""
    # two that are the same are not two keys
    assert state(Check("map", "each", "keys", [1, 1, 2]), obj).wrong(NAMES).startswith("keys of each: ")


def test_what_has_grown_is_counted_from_before_the_steps(obj: Obj) -> None:
    obj.maps["each"], obj.variables["total"] = View({1: [2, 3]}), 7
    grown = [Check("map", "each", "added", 4, key=1), Check("map", "each", "added", 2, key=9)]
    states = [state(check, obj) for check in (*grown, Check("variable", "total", "added", 0))]
    obj.maps["each"] = View({1: [5, 4], 9: [2]})
    assert [own.wrong(NAMES) for own in states] == ["", "", ""]
    obj.maps["each"], obj.variables["total"] = View({1: [5, 5]}), 8
    assert [own.wrong(NAMES) for own in states] == [
        "each[1]: expected 4 more, is 5 more",
        "each[9]: expected 2 more, is absent",
        "total: expected 0 more, is 1 more",
    ]


def events(rule: str, wanted: Any, **more: Any) -> Check:
    return Check("events", "ring", rule, wanted, struct="event", **more)


A, B = {"pid": 7, "comm": "a"}, {"pid": 8, "comm": "b"}


@pytest.mark.parametrize(
    ("check", "line"),
    [
        (events("values", [{"comm": "a"}, {"comm": "b"}]), ""),
        (events("values", [{"pid": 7}], where={"pid": "$pid"}), ""),
        (
            events("values", [{"comm": "b"}, {"comm": "a"}]),
            'ring: expected [{comm = "b"}, {comm = "a"}], is [{pid = 7, comm = "a"}, {pid = 8, comm = "b"}]',
        ),
        (
            events("values", [{"comm": "a"}]),
            'ring: expected [{comm = "a"}], is [{pid = 7, comm = "a"}, {pid = 8, comm = "b"}]',
        ),
        (events("values", [{"pid": 9}], where={"pid": 9}), "ring where {pid = 9}: expected [{pid = 9}], is []"),
        (events("count", 2), ""),
        (events("count", 0, where={"pid": 9}), ""),
        (
            events("count", 2, where={"pid": 8}),
            'ring where {pid = 8}: expected 2 events, is 1: [{pid = 8, comm = "b"}]',
        ),
    ],
)
def test_events_are_those_and_no_others(obj: Obj, check: Check, line: str) -> None:
    obj.ring.events = [A, B]
    assert state(check, obj).wrong(NAMES) == line


def test_events_of_processors_are_compared_in_any_order(obj: Obj) -> None:
    """The first that is wanted would fit both; each has one of its own."""
    obj.ring = Events([{"pid": 7, "comm": "a"}, {"pid": 7, "comm": "b"}], ordered=False)
    assert state(events("values", [{"comm": "b"}, {"pid": 7}]), obj).wrong(NAMES) == ""
    assert state(events("values", [{"pid": 7}, {"comm": "a"}]), obj).wrong(NAMES) == ""
    assert state(events("values", [{"comm": "a"}, {"comm": "a"}]), obj).wrong(NAMES) != ""


def test_a_long_list_is_cut(obj: Obj) -> None:
    obj.maps["each"] = View({key: [1] for key in range(10)})
    line = state(Check("map", "each", "keys", [1]), obj).wrong(NAMES)
    assert line == "keys of each: expected [1], is [0, 1, 2, 3, 4, 5, 6, 7] and 2 more"


@pytest.fixture
def play(obj: Obj, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return a function that plays a scenario; each step of it adds its number to the variable."""

    @contextmanager
    def attached(*arguments: object) -> Iterator[Obj]:
        assert arguments[-2:] == (("here",), XdpFlags.GENERIC)
        yield obj

    def do(step: Step, place: object) -> int:
        assert place is obj.place
        obj.variables["total"] += step.times
        return 40 + step.times if step.act == "run" else 0

    monkeypatch.setattr(playing, "attached", attached)
    monkeypatch.setattr(stimulus, "do", do)
    obj.variables["total"] = 0

    def run(*checks: Check, steps: tuple[Step, ...]) -> list[str]:
        scenario = Scenario("s", "x.bpf.o", steps, checks, ("here",), "generic", within=0.5)
        return playing.play(scenario, None, Path(), obj.place)  # type: ignore[arg-type]

    return run


STEPS = (Step("send", "x", 2), Step("run", "x", 1), Step("run", "x", 3), Step("send", "x", 4))


def test_the_steps_are_done_and_all_checks_are_read(obj: Obj, play: Callable[..., list[str]]) -> None:
    obj.maps["each"] = View()
    steps = (*STEPS, Step("put", "each", key="$pid", value=5))
    # the last process is the second run's
    checks = [Check("variable", "total", "value", 10), Check("map", "each", "value", 5, key=43)]
    assert play(*checks, steps=steps) == []
    assert play(Check("variable", "total", "added", 9), checks[1], steps=STEPS) == [
        "total: expected 9 more, is 10 more"
    ]


def test_what_holds_too_early_is_red(obj: Obj, play: Callable[..., list[str]]) -> None:
    """The value passes through what is expected, and is another one when nothing changes any more."""

    def late() -> None:
        obj.variables["total"] += 1

    obj.last = late
    assert play(Check("variable", "total", "value", 10), steps=STEPS) == ["total: expected 10, is 11"]


def test_skipped_runs_are_named_where_something_is_wrong(obj: Obj, play: Callable[..., list[str]]) -> None:
    obj.unseen = {"on_read": 2, "on_write": 1}
    assert play(Check("variable", "total", "value", 10), steps=STEPS) == []
    wrong, skipped = play(Check("variable", "total", "added", 9), steps=STEPS)
    assert wrong == "total: expected 9 more, is 10 more"
    assert "has not run on_read 2 times, on_write 1 times (recursion_misses)" in skipped


class Growing(dict[str, int]):
    """Variables that grow by one with each read, until their programs are detached."""

    attached = True

    def __getitem__(self, name: str) -> int:
        value = super().__getitem__(name)
        self[name] = value + self.attached
        return value


def test_what_comes_late_is_awaited(obj: Obj, play: Callable[..., list[str]]) -> None:
    obj.variables = own = Growing(total=0)

    def detach() -> None:
        own.attached = False
        own["total"] -= 1

    obj.last = detach
    assert play(Check("variable", "total", "value", 3), steps=STEPS[:0]) == []
