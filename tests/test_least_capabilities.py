"""The search for the fewest capabilities: what it finds suffices, no part of it does, and loads are not repeated."""

from __future__ import annotations

import errno
from collections.abc import Collection, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.guest.bpf.foreign import least, trial
from kernel_matrix.guest.bpf.foreign.configuring import Foreign
from kernel_matrix.guest.bpf.foreign.hooks import targets
from kernel_matrix.guest.bpf.foreign.hooks.place import Place
from kernel_matrix.guest.bpf.foreign.loading import LoadedObject
from kernel_matrix.guest.bpf.foreign.trial import Trial
from kernel_matrix.guest.bpf.foreign.undeclared import Undeclared
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.bpf.steps import Program
from kernel_matrix.guest.system.privilege import Cap
from kernel_matrix.shared.bpf.bpf_elf import BpfFile
from kernel_matrix.shared.bpf.object_table import ObjectSettings

_SETS = st.frozensets(st.sampled_from(list(Cap)), max_size=4)


@given(st.lists(_SETS, min_size=1, max_size=4), _SETS, _SETS)
def test_what_is_found_suffices_and_no_part_of_it_does(
    sufficient: list[frozenset[Cap]], start: frozenset[Cap], named: frozenset[Cap]
) -> None:
    """Whatever the kernel accepts instead of what, and whatever the refusals name."""

    def step(caps: frozenset[Cap]) -> StepError | None:
        accepted = any(one <= caps for one in sufficient)
        return None if accepted else StepError(errno.EPERM, "load", "x")

    result = least.smallest(start, step, lambda _: named)
    assert step(result) is None
    assert all(step(result - {cap}) is not None for cap in result)


def test_what_no_capability_helps_against_is_raised() -> None:
    refusal = StepError(errno.EINVAL, "attach", "x")
    with pytest.raises(StepError) as raised:
        least.smallest(frozenset(), lambda _: refusal, lambda _: ())
    assert raised.value is refusal


class _Loads:
    """Stands for `loaded`: counts, and takes what has CAP_BPF and a program that is not refused."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, refused: str = "") -> None:
        self.made: list[tuple[str, tuple[str, ...]]] = []
        self._caps: tuple[str, ...] = ("all",)
        self._refused = refused
        monkeypatch.setattr(trial, "loaded", self._loaded)
        monkeypatch.setattr(trial, "only_effective", self._only_effective)

    @contextmanager
    def _only_effective(self, caps: Collection[Cap]) -> Generator[None]:
        self._caps = tuple(sorted(cap.name for cap in caps))
        yield
        self._caps = ("all",)

    @contextmanager
    def _loaded(
        self, foreign: Foreign, pins: Path | None, only: str = "", *, explain: bool = False
    ) -> Generator[LoadedObject]:
        assert explain in {True, False}
        assert pins is None or self._caps == ("all",)
        self.made.append((only, self._caps))
        names = [only] if only else [name for name, section in foreign.file.programs.items() if section[0] != "?"]
        if not {"BPF", "all"} & set(self._caps) or self._refused in names:
            self._caps = ("all",)
            raise StepError(errno.EPERM, "load", only)
        yield LoadedObject({name: Program(name, 1) for name in names}, {}, {})


def _trial(tmp_path: Path) -> Trial:
    file = BpfFile({"first": "xdp", "second": "tc", "later": "?tc", "replacing": "?freplace/f", "entry": "fentry.s/f"})
    return Trial(Foreign(tmp_path, "x.bpf.o", file, ObjectSettings(), Place()), tmp_path)


def test_programs_loaded_whole_share_the_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads, tried = _Loads(monkeypatch), _trial(tmp_path)
    for name in ("first", "second"):
        with tried.having(name):
            assert tried.load_refused(name, {Cap.BPF}) is None
            assert tried.load_refused(name, {Cap.PERFMON}) is not None
    assert tried.known_to_load("second") == {Cap.BPF}
    assert tried.known_to_load("later") == frozenset()
    assert loads.made == [("", ("all",)), ("", ("BPF",)), ("", ("PERFMON",))]


def test_a_program_alone_stays_until_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads, tried = _Loads(monkeypatch, refused="second"), _trial(tmp_path)
    for name in ("first", "first", "later", "first"):
        with tried.having(name) as obj:
            assert set(obj.programs) == {name}
    assert [only for only, _ in loads.made] == ["", "first", "later", "first"]


def test_a_replacement_is_loaded_for_each_attachment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads, tried = _Loads(monkeypatch), _trial(tmp_path)
    for _ in range(2):
        with tried.having("replacing"):
            pass
    assert [only for only, _ in loads.made] == ["", "replacing", "replacing"]


def test_an_attachment_that_was_tried_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether there is a target is known from the program's own test; that test always attaches."""
    _Loads(monkeypatch)
    tried, place, made = _trial(tmp_path), Place(), []
    answers: dict[str, Exception] = {
        "second": Undeclared("why", "line"),
        "later": StepError(errno.EINVAL, "attach", "x"),
    }

    def attach(foreign: Foreign, obj: LoadedObject, name: str, place: Place, stack: ExitStack) -> str:
        made.append(name)
        if name in answers:
            raise answers[name]
        return "there"

    monkeypatch.setattr(targets, "attach", attach)
    assert [tried.attach("first", place) for _ in range(2)] == ["there", "there"]
    assert tried.attaches("first", place)
    assert not tried.attaches("second", place)
    assert not tried.attaches("second", place)
    for _ in range(2):
        with pytest.raises(StepError):
            tried.attaches("later", place)
    assert made == ["first", "first", "second", "later"]


@pytest.mark.parametrize(("times", "loads"), [(2, ["", "entry", "entry"]), (9, [""])])
def test_what_a_kernel_attaches_once_is_loaded_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, loads: list[str]
) -> None:
    """The kernel is asked by attaching again; where it forgets a program's target, each attachment has its own load."""
    made, tried, place = _Loads(monkeypatch), _trial(tmp_path), Place()
    attached: list[LoadedObject] = []

    def attach(foreign: Foreign, obj: LoadedObject, name: str, place: Place, stack: ExitStack) -> str:
        attached.append(obj)
        if sum(one is obj for one in attached) == times:
            raise StepError(errno.ENOENT, "attach", name)
        return "there"

    monkeypatch.setattr(targets, "attach", attach)
    assert tried.attach("entry", place) == "there"
    for _ in range(2):
        with tried.having("entry") as obj:
            targets.attach(tried.foreign, obj, "entry", place, ExitStack())
    assert [only for only, _ in made.made] == loads


def test_what_is_refused_again_for_another_reason_is_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _Loads(monkeypatch)
    tried, answers = _trial(tmp_path), [None, StepError(errno.EPERM, "attach", "x")]

    def attach(*_: object) -> str:
        if error := answers.pop(0):
            raise error
        return "there"

    monkeypatch.setattr(targets, "attach", attach)
    with pytest.raises(StepError, match="not permitted"):
        tried.attach("entry", Place())
