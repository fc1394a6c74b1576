"""The command ``soak``: what counts as a change, what is concluded, and how a run that fails ends it."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.commands.bench import soak
from kernel_matrix.guest.pytest.marks import shuffled
from kernel_matrix.shared import wire
from kernel_matrix.shared.errors import HarnessError, ManifestError
from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from tests import result_sets
from tests.projects import below

CELLS = st.dictionaries(
    st.tuples(st.sampled_from(["6.1", "7.3"]), st.sampled_from("abc")), st.sampled_from(["pass", "fail"])
)


@given(st.lists(CELLS, max_size=4))
def test_a_cell_changed_unless_every_run_has_it_alike(runs: list[dict[soak.Cell, str]]) -> None:
    changed = soak.changed(runs)
    for cell in {cell for run in runs for cell in run}:
        outcomes = tuple(run.get(cell, soak.ABSENT) for run in runs)
        assert (cell in changed) is (len(set(outcomes)) > 1)
        assert changed.get(cell, outcomes) == outcomes


def test_the_rate_is_bounded_by_what_was_tried() -> None:
    """None in n trials: 95 % confidence that the probability is below 1 - 0.05 ** (1 / n), about 3 / n."""
    runs = [{("6.1", str(number)): "pass" for number in range(300)}] * 10
    assert soak.summary(runs, 0) == (
        "10 runs of 300 cells: none changed; with 95% confidence fewer than 1 of 1,001 tests would"
    )
    assert soak.summary(runs, 2) == "10 runs of 300 cells: 2 changed"
    assert soak.summary([], 0) == "no run came to its end"


@given(
    st.integers(0, 5), st.permutations([f"{folder}/{file}::t{n}" for folder in "ab" for file in "xy" for n in range(3)])
)
def test_an_order_keeps_files_together(seed: int, tests: list[str]) -> None:
    order = sorted(tests, key=lambda test: shuffled(seed, test, ""))
    assert order == sorted(sorted(tests), key=lambda test: shuffled(seed, test, ""))
    for separator in ("/", "::"):
        parts = [test.partition(separator)[0] for test in order]
        assert len([*groupby(parts)]) == len(set(parts))


def test_orders_differ() -> None:
    tests = [f"a/x::t{number}" for number in range(9)]
    orders = {tuple(sorted(tests, key=lambda test: shuffled(seed, test, ""))) for seed in range(9)}
    assert len(orders) == 9


#: a matrix that leaves the result set for its order
MATRIX = """
import json, pathlib, sys
words = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
answers = json.loads(pathlib.Path("answers.json").read_text())
status, outcomes = answers[words["--order"]]
folder = pathlib.Path(words["--results"])
if outcomes is not None:
    own = folder / words["--order"]
    own.mkdir()
    document = json.loads(pathlib.Path("document.json").read_text())
    cell = document["cells"][0]
    document["cells"] = [dict(cell, kernel="6.1", test=test, outcome=outcome) for test, outcome in outcomes]
    (own / "matrix.json").write_text(json.dumps(document))
    (folder / "latest").unlink(missing_ok=True)
    (folder / "latest").symlink_to(own.name)
print("last line")
sys.exit(status)
"""


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a project whose matrix answers from answers.json: order -> exit status, outcomes by test."""
    package = tmp_path / "kernel_matrix"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(MATRIX)
    wire.write(tmp_path / "document.json", result_sets.document([Cell("6.1", "a", Outcome.PASS)]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def run(folder: Path, answers: object, runs: int = 2, seed: int = 1, hogs: int = 1) -> tuple[int, list[str]]:
    (folder / "answers.json").write_text(json.dumps(answers))
    lines: list[str] = []
    return soak.run(below(folder), soak.Asked(runs, seed, hogs), lines.append), lines


def test_what_changes_is_named(answers: Path) -> None:
    same = [["a", "pass"], ["b", "skip"]]
    status, lines = run(answers, {"1": [0, same], "2": [0, same]})
    assert status == 0
    assert lines[0].startswith("run 1 of 2, order 1: 1 pass, 1 skip; status 0, ")
    assert lines[-1].startswith("2 runs of 2 cells: none changed")
    status, lines = run(answers, {"5": [1, [["a", "fail"], ["b", "skip"]]], "6": [0, [["a", "pass"]]]}, seed=5)
    assert status == 1
    assert lines[2:] == ["changed: 6.1 a: fail pass", "changed: 6.1 b: skip absent", "2 runs of 2 cells: 2 changed"]


@pytest.mark.parametrize("answer", [[3, None], [4, None], [0, None]])
def test_a_run_without_a_verdict_ends_it(answers: Path, answer: object) -> None:
    with pytest.raises(HarnessError, match=r"the matrix ended with status \d: last line \(.*output.log\)"):
        run(answers, {"1": answer})


@pytest.mark.parametrize(("asked", "line"), [({"runs": 0}, "--runs 0"), ({"hogs": -1}, "--hogs -1")])
def test_wrong_numbers_are_one_line(answers: Path, asked: dict[str, int], line: str) -> None:
    with pytest.raises(ManifestError, match=line):
        run(answers, {}, **asked)
