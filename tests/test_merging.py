"""Shards make a run when they are all of one run's, each once; anything else is refused in a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_matrix.commands import merging
from kernel_matrix.images.packages import lock
from kernel_matrix.images.packages.archive import Package
from kernel_matrix.plan import sharding
from kernel_matrix.plan.sharding import Part, Shard, Unit
from kernel_matrix.report import run_folder as results
from kernel_matrix.report.run_folder import KernelFacts, RunDirectory, RunFacts
from kernel_matrix.results import baseline, document, matrix
from kernel_matrix.shared import wire
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from kernel_matrix.vm.guests import GuestRecord
from tests.projects import HERE
from tests.result_sets import read_cells

KERNELS = ("5.10", "6.1")
FILES = ("a.py", "b.py", "c.py")
TESTS = tuple(f"{file}::test_{name}" for file in FILES for name in "xy")
RELEASES = {"5.10": "5.10.0-46-amd64", "6.1": "6.1.0-56-amd64"}
PARTS = sharding.divide({Unit(kernel, file): 1.0 for kernel in KERNELS for file in FILES}, 2)
#: what the whole run would find
WHOLE = matrix.Matrix.of(
    [Cell(kernel, test, Outcome.PASS, RELEASES[kernel], 1.0) for kernel in KERNELS for test in TESTS], (), KERNELS
)

Change = Callable[[Part, list[Cell], RunFacts], tuple[Part, list[Cell], RunFacts]]


def _part(index: int, parts: tuple[tuple[Unit, ...], ...] = PARTS) -> Part:
    return Part(Shard(index, len(parts)), sharding.digest(parts), "p", ("suites",), KERNELS, parts[index - 1])


def _run(
    folder: Path, part: Part, cells: list[Cell], *, status: int | None = None, facts: RunFacts | None = None
) -> str:
    """Leave what a shard leaves."""
    run = RunDirectory.create(folder)
    kernels = tuple(KernelFacts(kernel, release, "1-1") for kernel, release in RELEASES.items())
    judged = matrix.Matrix.of(cells, (), KERNELS)
    for cell in cells:
        run.append(cell)
    for kernel in {cell.kernel for cell in cells}:
        run.console(kernel).write_text(f"console of {kernel} in {part.shard}\n")
    status = matrix.exit_status(judged, part=True) if status is None else status
    words, whole = ("--shard", str(part.shard)), part.selection == ("suites",)
    facts = facts or RunFacts("emulated", 1, kernels, words, whole=whole, shard=str(part.shard))
    run.finish(run.document(judged, facts, status), facts, (GuestRecord("6.1", "cold", "", 1.0),))
    sharding.keep(run.path, part)
    return str(folder / "latest")


def _merge(
    names: list[str], results: Path, expected: Path | None = None, kernels: Sequence[str] = ()
) -> merging.MergedRun:
    if expected is None:
        expected = results.with_name("as expected")
        for kernel, release in RELEASES.items():
            tests = {cell.test: cell.outcome for cell in WHOLE.cells if cell.kernel == kernel}
            baseline.write(expected, kernel, baseline.Expectation(release, "1-1", "", {}, tests))
    return merging.merge(HERE, names, results, expected, kernels)


def _own(part: Part, cells: tuple[Cell, ...] = WHOLE.cells) -> list[Cell]:
    return [cell for cell in cells if part.has(cell.kernel, cell.test)]


def _shards(folder: Path) -> list[str]:
    return [_run(folder / str(index), _part(index), _own(_part(index))) for index in (1, 2)]


def test_all_shards_are_the_run(tmp_path: Path) -> None:
    names = _shards(tmp_path)
    joined = _merge(names[::-1], tmp_path / "joined")
    assert joined.judged == WHOLE
    assert joined.status == 0
    facts, folder = joined.facts, joined.folder
    assert facts.arguments == ("suites",)
    assert facts.releases == RELEASES
    merged = document.read(tmp_path / "joined" / "latest")
    assert merged.cells == WHOLE.cells
    assert merged.shard == ""
    assert set(read_cells(folder / "results.jsonl")) == set(WHOLE.cells)
    record = wire.decode((folder / "run.json").read_bytes(), results.RunRecord)
    assert len(record.guests) == 2
    assert (folder / "console" / "6.1.log").read_text() == "console of 6.1 in 1/2\nconsole of 6.1 in 2/2\n"
    assert all((folder / name).exists() for name in ("junit.xml", "matrix.md"))


def test_a_merged_run_has_the_first_start_and_longest_time(tmp_path: Path) -> None:
    """The run began with its first shard and took as long as its longest."""
    names = _shards(tmp_path)
    shown = Path(names[0]) / document.NAME
    shown.write_text(
        json.dumps({**json.loads(shown.read_text()), "started": "2020-01-01T00:00:00+00:00", "seconds": 99})
    )
    _merge(names, tmp_path / "joined")
    merged = document.read(tmp_path / "joined" / "latest")
    assert datetime.fromisoformat(merged.started).year == 2020
    assert 99 <= merged.seconds < 120


outcomes = st.sampled_from(Outcome)


@given(st.lists(outcomes, min_size=len(WHOLE.cells), max_size=len(WHOLE.cells)), st.integers(1, 8))
@settings(max_examples=50)
def test_joining_what_was_divided_gives_the_whole(drawn: list[Outcome], count: int) -> None:
    """Whatever the tests did; also what the whole run would miss is missed, where another kernel has collected it."""
    cells = [replace(cell, outcome=outcome) for cell, outcome in zip(WHOLE.cells, drawn, strict=True)]
    came = [cell for cell in cells if cell.outcome is not Outcome.NOTRUN]
    collected = {kernel: {cell.test for cell in came if cell.kernel == kernel} for kernel in KERNELS}
    whole = matrix.Matrix.of(came, matrix.expected(collected, {}, named=False), KERNELS)
    parts = sharding.divide({Unit(kernel, file): 1.0 for kernel in KERNELS for file in FILES}, count)
    shards: list[Any] = []
    for index in range(1, count + 1):
        part = _part(index, parts)
        own = [cell for cell in came if part.has(cell.kernel, cell.test)]
        own_collected = {kernel: {cell.test for cell in own if cell.kernel == kernel} for kernel in KERNELS}
        expected = {cell for cell in matrix.expected(own_collected, {}, named=False) if part.has(*cell)}
        shown = document.Document(
            document.VERSION,
            "",
            0.0,
            0,
            "",
            1,
            (),
            True,
            "",
            (),
            (),
            matrix.Matrix.of(own, expected, KERNELS).cells,
            (),
        )
        shards.append(merging.ShardResults(str(index), Path(), part, shown, None))  # type: ignore[arg-type]
    assert merging.join(shards) == whole


def test_deselected_is_not_missing_and_uncollected_is(tmp_path: Path) -> None:
    """Of two tests in a file, 6.1 leaves one out by -k; its guest in the other shard does not come up at all."""
    parts = ((Unit("5.10", "a.py"), Unit("6.1", "b.py")), (Unit("5.10", "b.py"), Unit("6.1", "a.py")))
    first = replace(_part(1, parts), left_out={"6.1": ("b.py::test_y",)})
    one = [_cell("5.10", "a.py::test_x"), _cell("5.10", "a.py::test_y"), _cell("6.1", "b.py::test_x")]
    other = [
        _cell("5.10", "b.py::test_x"),
        _cell("5.10", "b.py::test_y"),
        _cell("6.1", "boot", Outcome.LOST),
    ]
    names = [_run(tmp_path / "1", first, one), _run(tmp_path / "2", _part(2, parts), other)]
    joined = _merge(names, tmp_path / "joined")
    judged, status = joined.judged, joined.status
    assert {cell.test: cell.outcome for cell in judged.cells if cell.kernel == "6.1"} == {
        "b.py::test_x": Outcome.PASS,
        "a.py::test_x": Outcome.NOTRUN,
        "a.py::test_y": Outcome.NOTRUN,
        "boot": Outcome.LOST,
    }
    assert status == 1


def _cell(kernel: str, test: str, outcome: Outcome = Outcome.PASS) -> Cell:
    return Cell(kernel, test, outcome, RELEASES[kernel])


def test_a_guest_that_does_not_boot_in_two_shards_is_one_cell(tmp_path: Path) -> None:
    lost = [_cell("6.1", "boot", Outcome.LOST)]
    names = [_run(tmp_path / str(index), _part(index), lost) for index in (1, 2)]
    joined = _merge(names, tmp_path / "joined")
    judged, status = joined.judged, joined.status
    assert [cell.test for cell in judged.cells] == ["boot"]
    assert status == 3


def test_a_shard_with_nothing_to_run_counts(tmp_path: Path) -> None:
    parts = (PARTS[0], PARTS[1], ())
    names = [_run(tmp_path / str(index), _part(index, parts), _own(_part(index, parts))) for index in (1, 2, 3)]
    joined = _merge(names, tmp_path / "joined")
    judged, status = joined.judged, joined.status
    assert (judged, status) == (WHOLE, 0)
    with pytest.raises(ManifestError, match=r"^missing: shard 3/3$"):
        _merge(names[:2], tmp_path / "joined")


def test_nothing_but_empty_shards_is_no_verdict(tmp_path: Path) -> None:
    names = [_run(tmp_path / str(index), _part(index), []) for index in (1, 2)]
    assert _merge(names, tmp_path / "joined").status == 3


def test_green_cells_do_not_hide_that_a_shard_ended_badly(tmp_path: Path) -> None:
    names = [_run(tmp_path / str(index), _part(index), _own(_part(index)), status=3 * (index - 1)) for index in (1, 2)]
    assert _merge(names, tmp_path / "joined").status == 3


def _refused(tmp_path: Path, names: list[str]) -> str:
    with pytest.raises(ManifestError) as refusal:
        _merge(names, tmp_path / "joined")
    assert "\n" not in str(refusal.value)
    assert refusal.value.exit_status == 4
    assert not (tmp_path / "joined").exists(), "a refusal leaves no run"
    return str(refusal.value)


def test_gaps_are_named(tmp_path: Path) -> None:
    parts = (PARTS[0], PARTS[1], (), ())
    names = [_run(tmp_path / str(index), _part(index, parts), _own(_part(index, parts))) for index in (1, 3)]
    assert _refused(tmp_path, names) == "missing: shard 2/4, 4/4"


def test_doubles_are_named(tmp_path: Path) -> None:
    names = _shards(tmp_path)
    assert _refused(tmp_path, [*names, names[0]]) == f"shard 1/2 appears twice: {names[0]} and {names[0]}"
    more = _run(tmp_path / "3", _part(2), [*_own(_part(2)), _own(_part(1))[0]])
    cell = _own(_part(1))[0]
    assert _refused(tmp_path, [names[0], more]) == f"{cell.kernel} {cell.test} is in two shards: {names[0]} and {more}"


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (replace(_part(2), shard=Shard(2, 3)), "shards 1/2 and 2/3"),
        (replace(_part(2), project="q"), "the project's files are not the same (another commit, or changed ones)"),
        (replace(_part(2), selection=("suites", "-k", "vlan")), "they were asked for 'suites' and 'suites -k vlan'"),
        (replace(_part(2), kernels=("6.1",)), "on the kernels 5.10 6.1 and 6.1"),
        (replace(_part(2), division="d"), "they were divided in different ways"),
    ],
)
def test_shards_of_different_runs_are_refused(tmp_path: Path, changed: Part, line: str) -> None:
    names = [_shards(tmp_path)[0], _run(tmp_path / "3", changed, _own(_part(2)))]
    assert _refused(tmp_path, names) == f"{names[0]} and {names[1]} are of different runs: {line}"


def _runs_of_kernels(folder: Path, count: int = 1) -> list[str]:
    """Leave what a run of each kernel leaves, each divided into as many parts."""
    names = []
    for kernel in KERNELS[::-1]:
        parts = sharding.divide({Unit(kernel, file): 1.0 for file in FILES}, count)
        for index in range(1, count + 1):
            part = replace(_part(index, parts), kernels=(kernel,))
            names.append(_run(folder / f"{kernel}-{index}", part, _own(part)))
    return names


@pytest.mark.parametrize("count", [1, 2])
def test_runs_of_different_kernels_are_one_run(tmp_path: Path, count: int) -> None:
    names = _runs_of_kernels(tmp_path, count)
    joined = _merge(names, tmp_path / "joined")
    assert (joined.judged, joined.status) == (WHOLE, 0)
    assert joined.facts.releases == RELEASES
    assert document.read(joined.folder).whole


def test_a_test_that_one_kernel_collected_is_due_on_all(tmp_path: Path) -> None:
    """Its guest did not come up, so its own run could not know what to expect of it."""
    first, second = _runs_of_kernels(tmp_path)
    part = sharding.read(Path(first), first)
    lost = _run(tmp_path / "lost", part, [_cell("6.1", "boot", Outcome.LOST)])
    joined = _merge([lost, second], tmp_path / "joined")
    assert {cell.test for cell in joined.judged.cells if cell.outcome is Outcome.NOTRUN} == set(TESTS)
    assert joined.status == 1


def test_a_gap_in_one_kernels_run_is_named(tmp_path: Path) -> None:
    names = _runs_of_kernels(tmp_path, 2)
    assert _refused(tmp_path, names[:3]) == "missing: shard 2/2 of 5.10"
    twice = [*names, names[3]]
    assert _refused(tmp_path, twice) == f"shard 2/2 of 5.10 appears twice: {names[3]} and {names[3]}"


def test_runs_that_share_a_kernel_are_refused(tmp_path: Path) -> None:
    names = [_shards(tmp_path)[0], _runs_of_kernels(tmp_path / "own")[0]]
    assert _refused(tmp_path, names) == (
        f"{names[0]} and {names[1]} are of different runs: on the kernels 5.10 6.1 and 6.1"
    )


def test_a_kernel_of_two_releases_is_refused(tmp_path: Path) -> None:
    part = _part(2)
    facts = RunFacts("", 1, (KernelFacts("5.10", "", ""), KernelFacts("6.1", "6.1.0-57-amd64", "1-2")), shard="2/2")
    names = [_shards(tmp_path)[0], _run(tmp_path / "3", part, _own(part), facts=facts)]
    assert _refused(tmp_path, names) == (
        f"kernel 6.1 is 6.1.0-56-amd64 (1-1) in {names[0]} and 6.1.0-57-amd64 (1-2) in {names[1]}"
    )


def test_an_interrupted_shard_is_a_gap(tmp_path: Path) -> None:
    names = [_shards(tmp_path)[0], _run(tmp_path / "3", _part(2), [], status=2)]
    assert _refused(tmp_path, names) == f"shard 2/2 ({names[1]}) was interrupted: run it again"


def test_a_folder_that_is_no_shard_of_this_schema_is_refused(tmp_path: Path) -> None:
    """A folder without results, results of another schema, and a whole run."""
    name = _shards(tmp_path)[0]
    assert _refused(tmp_path, [name, str(tmp_path)]).startswith(f"{tmp_path}: no results of a run (")
    shown = Path(name) / document.NAME
    shown.write_text(shown.read_text().replace('"version":1,', '"version":99,', 1))
    assert "version 99 of result sets" in _refused(tmp_path, [name])
    (Path(_shards(tmp_path / "more")[0]) / sharding.NAME).unlink()
    line = _refused(tmp_path, [str(tmp_path / "more" / "1" / "latest")])
    assert line.endswith("the results of a whole run, not of a shard")


def test_a_folder_of_runs_stands_for_the_latest(tmp_path: Path) -> None:
    _shards(tmp_path)
    joined = _merge([str(tmp_path / "1"), str(tmp_path / "2")], tmp_path / "joined")
    assert joined.judged == WHOLE


def test_what_the_baseline_has_and_no_shard_ran_is_gone(tmp_path: Path) -> None:
    """A shard is not held to the baseline's other tests, the run is."""
    names = _shards(tmp_path)
    tests = {cell.test: cell.outcome for cell in WHOLE.cells} | {"d.py::test_x": Outcome.PASS}
    for kernel, own in (("6.1", tests), ("5.10", {test: tests[test] for test in TESTS})):
        baseline.write(tmp_path / "expected", kernel, baseline.Expectation(RELEASES[kernel], "1-1", "", {}, own))
    joined = _merge(names, tmp_path / "joined", tmp_path / "expected")
    assert [str(change) for change in joined.changes if change.gates] == ["gone: 6.1 d.py::test_x: pass -> -"]
    assert joined.status == 1
    assert document.read(joined.folder).changes == joined.changes


def test_a_kernel_whose_baseline_is_deleted_gates(tmp_path: Path) -> None:
    joined = _merge(_shards(tmp_path), tmp_path / "joined", tmp_path / "no baseline")
    assert [(change.kernel, change.gates) for change in joined.changes] == [("5.10", True), ("6.1", True)]
    assert joined.status == 1


def test_what_was_planned_and_not_locked_is_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "read", lambda _: lock.Lock({"5.10": (Package("x", "1", "", 1),)}))
    joined = _merge(_shards(tmp_path), tmp_path / "joined", kernels=["core"])
    assert [note.partition(":")[0] for note in joined.facts.notes] == ["6.12", "7.3"]
    assert joined.facts.notes[0].startswith("6.12: no results, not locked: ")
    notes = document.read(joined.folder).notes
    assert notes == joined.facts.notes
    assert all(
        f"{kernel}: no results, not locked" in (joined.folder / "matrix.md").read_text() for kernel in ("6.12", "7.3")
    )
    assert "6.12: no results, not locked" in (joined.folder / "matrix.html").read_text()
    assert _merge(_shards(tmp_path / "2"), tmp_path / "without").facts.notes == ()


def test_what_tests_recorded_is_the_runs(tmp_path: Path) -> None:
    names = _shards(tmp_path)
    for name, kernel in zip(names, KERNELS, strict=True):
        (Path(name) / "capabilities").mkdir()
        (Path(name) / "capabilities" / f"{kernel}.json").write_text(f'"{kernel}"')
        (Path(name) / "guests-x").mkdir()
        (Path(name) / "guests-x" / f"{kernel}.json").write_text("{}")
        (Path(name) / "pcap" / kernel).mkdir(parents=True)
        (Path(name) / "pcap" / kernel / "a.pcap").write_text(kernel)
    folder = _merge(names, tmp_path / "joined").folder
    assert [(folder / "pcap" / kernel / "a.pcap").read_text() for kernel in KERNELS] == list(KERNELS)
    assert sorted(path.name for path in (folder / "capabilities").iterdir()) == ["5.10.json", "6.1.json"]
    assert not list(folder.glob("guests-*"))
