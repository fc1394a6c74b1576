"""Every cell is in exactly one shard, the same on every machine, and no shard has much more to do than another."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.plan import selection, sharding
from kernel_matrix.plan.sharding import Part, Shard, Unit
from kernel_matrix.results.document import VERSION, Document
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from tests.projects import HERE, ROOT, below

KERNELS = ("5.10", "6.1", "6.1+locked", "7.3")

units = st.builds(Unit, st.sampled_from(KERNELS), st.sampled_from([f"suites/test_{name}.py" for name in "abcdefgh"]))
#: as the file of durations has them: tenths of a second
seconds = st.integers(0, 1000).map(lambda tenths: tenths / 10)
weights = st.dictionaries(units, seconds)
counts = st.integers(1, 12)


def _cell(kernel: str, test: str, outcome: Outcome = Outcome.PASS, duration: float = 1.0) -> Cell:
    return Cell(kernel, test, outcome, duration=duration)


def _document(*cells: Cell) -> Document:
    return Document(VERSION, "2026-01-01T00:00:00+00:00", 1.0, 0, "emulated", 1, (), True, "", (), (), cells, ())


@given(weights, counts)
def test_every_unit_is_in_exactly_one_part(weights: dict[Unit, float], count: int) -> None:
    parts = sharding.divide(weights, count)
    assert len(parts) == count
    assert sorted(unit for part in parts for unit in part) == sorted(weights)


@given(weights, counts, st.randoms(use_true_random=False))
def test_the_order_of_what_is_divided_changes_nothing(
    weights: dict[Unit, float], count: int, rng: random.Random
) -> None:
    shuffled = list(weights.items())
    rng.shuffle(shuffled)
    parts = sharding.divide(weights, count)
    assert sharding.divide(dict(shuffled), count) == parts
    assert sharding.digest(sharding.divide(dict(shuffled), count)) == sharding.digest(parts)


@given(weights, counts)
def test_no_part_exceeds_its_share_by_more_than_a_unit(weights: dict[Unit, float], count: int) -> None:
    """A part is at most its share of the total when it gets its last unit, which is at most the longest."""
    loads = [sum(weights[unit] for unit in part) for part in sharding.divide(weights, count)]
    assert max(loads) <= sum(weights.values()) / count + max(weights.values(), default=0) + 1e-6


@given(weights, counts, st.randoms(use_true_random=False))
def test_an_undivided_unit_is_in_one_part_in_any_order(
    weights: dict[Unit, float], count: int, rng: random.Random
) -> None:
    """A unit that is not divided is in exactly one part, and the order of the units changes nothing."""

    def whole(file: str) -> str:
        return "first" if file < "suites/test_d" else file

    parts = sharding.divide(weights, count, whole)
    assert sorted(unit for part in parts for unit in part) == sorted(weights)
    bundles: dict[tuple[str, str], float] = {}
    for unit, weight in weights.items():
        key = (unit.kernel, whole(unit.file))
        bundles[key] = bundles.get(key, 0.0) + weight
    there = [{(unit.kernel, whole(unit.file)) for unit in part} for part in parts]
    assert sum(map(len, there)) == len(bundles)
    loads = [sum(weights[unit] for unit in part) for part in parts]
    assert max(loads) <= sum(weights.values()) / count + max(bundles.values(), default=0) + 1e-6
    shuffled = list(weights.items())
    rng.shuffle(shuffled)
    assert sharding.divide(dict(shuffled), count, whole) == parts


def test_a_folder_whose_fixtures_are_the_packages_is_not_divided(tmp_path: Path) -> None:
    for name, text in {
        "a": '@pytest.fixture(scope="package")\ndef x(): ...\n',
        "b": "@pytest.fixture\ndef x(): ...\n",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "conftest.py").write_text(text)
    (tmp_path / "c").mkdir()
    pieces = [selection.piece_path(tmp_path, f"{name}/test_x.py") for name in "abc"]
    assert pieces == ["a", "b/test_x.py", "c/test_x.py"]
    assert selection.piece_path(ROOT, "suites/capabilities/test_table.py") == "suites/capabilities"


@given(weights, st.integers(1, 40))
def test_a_part_is_empty_only_where_there_are_fewer_units(weights: dict[Unit, float], count: int) -> None:
    weights = {unit: weight + 0.1 for unit, weight in weights.items()}
    empty = [part for part in sharding.divide(weights, count) if not part]
    assert len(empty) == max(0, count - len(weights))


@given(weights, weights, counts)
def test_two_divisions_with_one_digest_are_one(one: dict[Unit, float], other: dict[Unit, float], count: int) -> None:
    parts, others = sharding.divide(one, count), sharding.divide(other, count)
    assert (parts == others) == (sharding.digest(parts) == sharding.digest(others))


@pytest.mark.parametrize("text", ["0/3", "4/3", "x", "", "1", "1/0", "-1/2", "1/2/3", " 1/2", "01/2", "१/२", "1/2\n"])
def test_what_is_no_part_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(ManifestError, match="not a part such as 2/5") as refusal:
        Shard.parse(text)
    assert refusal.value.exit_status == 4


@given(st.integers(1, 99), st.integers(0, 99))
def test_a_part_is_read_as_it_is_written(index: int, more: int) -> None:
    shard = Shard(index, index + more)
    assert Shard.parse(str(shard)) == shard


def test_an_unknown_unit_takes_the_median_of_its_file_or_of_all() -> None:
    durations = {"5.10": {"a": 2.0, "b": 9.0}, "6.1": {"a": 4.0}, "7.3": {"a": 9.0}}
    wanted = [Unit("5.10", "a"), Unit("9.9", "a"), Unit("6.1", "b"), Unit("6.1", "c")]
    assert list(sharding.weigh(wanted, durations).values()) == [2.0, 4.0, 9.0, 6.5]
    assert list(sharding.weigh(wanted, {}).values()) == [1.0] * 4


def test_units_are_the_chosen_files_on_the_chosen_kernels() -> None:
    """The units are the files of the command line, each on the kernels that the command line selects."""
    guests = {"5.10": (), "6.1": (), "6.1+locked": ("s/test_b.py",)}
    files = {"s": ["s/test_a.py", "s/test_b.py"]}

    def pairs(*arguments: str) -> list[str]:
        listed = sharding.units(
            guests, arguments, [*guests, "9.9"], lambda argument: files.get(argument, [argument.partition("::")[0]])
        )
        return [f"{kernel} {file}" for kernel, file in listed]

    everywhere = ["5.10 s/test_a.py", "5.10 s/test_b.py", "6.1 s/test_a.py", "6.1 s/test_b.py"]
    assert pairs("s") == [*everywhere, "6.1+locked s/test_b.py"]
    assert pairs("s/test_a.py::test_x") == ["5.10 s/test_a.py", "6.1 s/test_a.py"]
    assert pairs("s/test_b.py::test_x[6.1-p]", "s/test_a.py::test_x[6.1]") == ["6.1 s/test_a.py", "6.1 s/test_b.py"]
    assert pairs("s/test_b.py::test_x[9.9]") == []


def test_the_test_files_of_a_folder_are_those_that_pytest_takes(tmp_path: Path) -> None:
    for name in ("s/test_b.py", "s/t/test_a.py", "s/a_test.py", "s/conftest.py", "s/helper.py", "s/test_a_test.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert selection.test_files(tmp_path, "s") == ["s/a_test.py", "s/t/test_a.py", "s/test_a_test.py", "s/test_b.py"]
    assert selection.test_files(tmp_path, "s/helper.py::test_x") == ["s/helper.py"]


def test_durations_come_from_results_or_stay_as_they_were() -> None:
    """A result set replaces the durations that it has; the others keep their recorded values."""
    before = {"5.10": {"a.py": 1.0, "b.py": 2.0}, "6.1": {"a.py": 5.0}}
    document = _document(
        _cell("5.10", "a.py::test_x", duration=3.14),
        _cell("5.10", "a.py::test_y", Outcome.FAIL, duration=1.0),
        _cell("5.10", "b.py::test_x", Outcome.LOST, duration=100.0),
        _cell("5.10", "boot", Outcome.LOST),
        _cell("6.1+locked", "c.py::test_x", duration=7.0),
    )
    assert sharding.recorded(document, before) == {
        "5.10": {"a.py": 4.1, "b.py": 2.0},
        "6.1": {"a.py": 5.0, "c.py": 0.0},
        "6.1+locked": {"c.py": 7.0},
    }


def test_durations_are_kept_in_the_project(tmp_path: Path) -> None:
    (tmp_path / "baselines").mkdir()
    path = below(tmp_path).durations
    assert sharding.read_durations(path) == {}
    sharding.write_durations(path, _document(_cell("6.1", "a.py::test_x", duration=2.0)))
    assert sharding.read_durations(path) == {"6.1": {"a.py": 2.0}}
    path.write_text('{"6.1": 3}')
    with pytest.raises(ManifestError, match=rf"^{tmp_path}/baselines/durations\.json: "):
        sharding.read_durations(path)


def test_the_recorded_files_exist() -> None:
    recorded = json.loads(HERE.durations.read_text())
    assert {file for files in recorded.values() for file in files if not (ROOT / file).exists()} == set()


def test_a_part_is_read_as_it_was_kept(tmp_path: Path) -> None:
    part = Part(
        Shard(1, 2), "d", "p", ("suites",), ("6.1",), (Unit("6.1", "a.py"),), left_out={"6.1": ("a.py::test_x",)}
    )
    sharding.keep(tmp_path, part)
    assert sharding.read(tmp_path, "dir") == part
    assert part.files("6.1") == ("a.py",)
    assert part.has("6.1", "a.py::test_y")
    assert not part.has("7.3", "a.py::test_y")
    with pytest.raises(ManifestError, match=r"^dir: the results of a whole run, not of a shard"):
        sharding.read(tmp_path.parent, "dir")
