"""The baseline's files say what they were made of, and never expect red."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.config import manifest
from kernel_matrix.results import baseline
from kernel_matrix.results.baseline import Expectation, updated
from kernel_matrix.results.document import VERSION, Column, Document
from kernel_matrix.shared.bpf.costs import Cost
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.outcomes.cells import IMAGE, Cell, Outcome
from tests.projects import HERE

GREEN = [outcome for outcome in Outcome if outcome.green]
COST = Cost(1000, 100, 50, 64, 800, 1600, 2.0)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
tests = st.dictionaries(
    st.builds(lambda file, name: f"{file}.py::{name}", st.sampled_from("ab"), names), st.sampled_from(GREEN)
)


def document(*cells: Cell) -> Document:
    columns = tuple(Column(kernel, "6.1.0", "1", "abc", {"p": COST}) for kernel in {cell.kernel for cell in cells})
    return Document(VERSION, "", 1.0, 0, "emulated", 1, (), True, "", (), columns, cells, ())


@given(tests, st.dictionaries(names, st.just(COST)), st.dictionaries(names, names, min_size=1))
def test_a_file_is_read_as_it_was_written(
    of: dict[str, Outcome], costs: dict[str, Cost], values: dict[str, str]
) -> None:
    observed = dict.fromkeys(list(of)[::2], values)
    wanted = Expectation("6.1.0", "6.1.192-2", "abc", costs, of, observed)
    read = baseline.parse(baseline.text(wanted).encode(), "6.1.json")
    assert (dict(read.tests), dict(read.costs), read.observed) == (of, costs, observed)
    assert (read.release, read.version, read.config) == ("6.1.0", "6.1.192-2", "abc")


def test_a_test_is_a_line() -> None:
    lines = [
        baseline.text(Expectation("", "", "", {}, {f"a.py::{n}": Outcome.PASS for n in ns})).splitlines()
        for ns in ("xz", "xyz")
    ]
    assert set(lines[1]) - set(lines[0]) == {'   "y": "pass",'}


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"{", "truncated"),
        (b'{"release": 1}', "release"),
        (
            b'{"release": "", "version": "", "config": "", "costs": {}, "tests": {}, "observed": {"a.py": {"x": {}}}}',
            "a.py::x has observations and no outcome",
        ),
        (
            b'{"release": "", "version": "", "config": "", "costs": {}, "tests": {"a.py": {"x": "fail"}}}',
            "a.py::x: fail is red, and red is never",
        ),
        (b'{"release": "", "version": "", "config": "", "costs": {}, "tests": {}, "seen": {}}', "unknown field `seen`"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, data: bytes, line: str) -> None:
    (tmp_path / "6.1.json").write_bytes(data)
    with pytest.raises(ManifestError, match=line) as error:
        baseline.read(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/6.1.json: ")
    assert "\n" not in str(error.value)


def test_what_was_found_leaves_out_a_kernel_without_an_image() -> None:
    cells = (Cell("6.1", "a.py::x", Outcome.PASS), Cell("7.0", IMAGE, Outcome.ERROR, detail="gone"))
    baselines = baseline.of_document(document(*cells))
    assert set(baselines) == {"6.1"}
    assert baselines["6.1"].tests == {"a.py::x": Outcome.PASS}
    assert baselines["6.1"].costs == {"p": COST}


def test_red_is_not_recorded_and_its_former_entry_stays() -> None:
    before = Expectation("1", "1", "", {}, {"a": Outcome.PASS, "old": Outcome.PASS})
    now = Expectation("2", "2", "", {}, {"a": Outcome.FAIL, "b": Outcome.SKIP, "c": Outcome.LOST})
    wanted, red = updated(before, now, whole=True)
    assert red == ["a", "c"]
    assert wanted.tests == {"a": Outcome.PASS, "b": Outcome.SKIP}
    assert wanted.release == "2"


def test_observations_are_those_of_tests_that_did_their_work() -> None:
    seen = (("path", "link"),)
    cells = [Cell("6.1", f"a.py::{outcome}", outcome, observed=seen) for outcome in Outcome]
    observed = baseline.of_document(document(*cells))["6.1"].observed
    assert observed == {"a.py::pass": {"path": "link"}, "a.py::refused": {"path": "link"}}


@pytest.mark.parametrize("whole", [False, True])
def test_observations_are_recorded_with_their_outcomes(whole: bool) -> None:
    """A red test's former entries stay; a test that is skipped has none; one that did not run keeps them."""
    old, new = {"path": "link"}, {"path": "netlink"}
    outcomes = {"a": Outcome.PASS, "red": Outcome.PASS, "skipped": Outcome.PASS, "silent": Outcome.PASS}
    before = Expectation(
        "1", "1", "", {}, {**outcomes, "other": Outcome.PASS}, dict.fromkeys([*outcomes, "other"], old)
    )
    results = {"red": Outcome.FAIL, "skipped": Outcome.SKIP}
    now = Expectation("1", "1", "", {}, {**outcomes, **results, "b": Outcome.PASS}, {"a": new, "b": new})
    entry, red = updated(before, now, whole=whole)
    assert red == ["red"]
    assert entry.observed == {"a": new, "b": new, "red": old} | ({} if whole else {"other": old})


def test_a_run_of_some_tests_leaves_the_others() -> None:
    before = Expectation("1", "1", "", {"p": COST}, {"a": Outcome.PASS, "old": Outcome.PASS})
    now = Expectation("1", "1", "", {}, {"a": Outcome.SKIP})
    wanted, _ = updated(before, now, whole=False)
    assert wanted.tests == {"a": Outcome.SKIP, "old": Outcome.PASS}
    assert wanted.costs == {"p": COST}


def test_a_time_that_was_measured_anew_is_no_difference() -> None:
    before = Expectation("1", "1", "", {"p": COST, "q": COST}, {})
    now = Expectation("1", "1", "", {"p": replace(COST, load=9.0), "q": replace(COST, states=1, load=9.0)}, {})
    wanted, _ = updated(before, now, whole=True)
    assert wanted.costs == {"p": COST, "q": now.costs["q"]}
    gone, _ = updated(before, replace(now, costs={"p": COST}), whole=True)
    assert set(gone.costs) == {"p"}
    unmeasured, _ = updated(before, replace(now, costs={}), whole=True)
    assert unmeasured.costs == before.costs


@pytest.mark.parametrize("states", [COST.states - 1, COST.states + 1])
def test_a_cost_that_grew_or_shrank_is_recorded(states: int) -> None:
    now = Expectation("1", "1", "", {"p": replace(COST, states=states)}, {})
    assert updated(Expectation("1", "1", "", {"p": COST}, {}), now, whole=True)[0].costs == now.costs


def test_observations_are_written_in_the_order_of_their_names() -> None:
    """In whatever order they came: a file without a change has no difference to review."""
    seen = {"b": "2", "a": "1"}
    assert '"x": {"a": "1", "b": "2"}' in baseline.text(
        Expectation("", "", "", {}, {"f::x": Outcome.PASS}, {"f::x": seen})
    )


def test_every_file_is_of_a_kernel_of_the_manifest() -> None:
    """A kernel that the manifest has no more leaves no baseline behind."""
    assert set(baseline.read(HERE.matrix_baselines)) <= set(manifest.load(HERE.images).guests)


def test_a_test_that_observed_nothing_has_no_observations() -> None:
    cells = (Cell("6.1", "a.py::x", Outcome.PASS), Cell("6.1", "suites/b.py::y", Outcome.PASS))
    entry = baseline.of_document(document(*cells))["6.1"]
    assert entry.observed == {}
    assert entry.tests == {"a.py::x": Outcome.PASS, "suites/b.py::y": Outcome.PASS}


def test_a_run_of_some_tests_leaves_costs_it_did_not_measure() -> None:
    before = Expectation("1", "1", "", {"p": COST, "q": COST}, {})
    now = Expectation("1", "1", "", {"q": replace(COST, states=1)}, {})
    assert updated(before, now, whole=False)[0].costs == {"p": COST, "q": now.costs["q"]}
    assert updated(None, now, whole=False)[0].costs == now.costs


def test_a_baseline_is_written_below_new_folders_and_again(tmp_path: Path) -> None:
    """What is no test of a file is under its own name."""
    folder = tmp_path / "new" / "matrix"
    for outcome in (Outcome.PASS, Outcome.SKIP):
        expected = Expectation("1", "2", "3", {"p": COST}, {"./loader": outcome, "a.py::x": Outcome.PASS})
        baseline.write(folder, "6.1", expected)
        assert baseline.read(folder) == {"6.1": expected}
    assert (folder / "6.1.json").read_text().endswith(" }\n}\n")
