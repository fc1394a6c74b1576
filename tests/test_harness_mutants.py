"""The mutants of the harness's own decisions: made, tried in a copy, and held against their record."""

from __future__ import annotations

import ast
import itertools
import os
import subprocess
import sys
from pathlib import Path

import mutant_record
import mutant_trials
import pytest
from harness_mutants import RECORD, Trial, chosen, sample
from mutant_record import RecordError
from python_mutants import Name, mutants, spans

from tests.projects import ROOT

MODULE = """\
LIMIT = 3


class Range:
    @property
    def small(self) -> bool | None:
        return self.number < LIMIT


def text(word: "str | None" = None) -> bool:
    return word == "a"
"""


def changes(source: str, *without: str) -> set[tuple[str, str, str]]:
    return {mutant.name[:3] for mutant in mutants(source, without)}


def test_a_mutant_is_named_by_its_place_and_its_lines() -> None:
    made = changes(MODULE)
    assert {("", "LIMIT = 3", "LIMIT = 4"), ("", "LIMIT = 3", "LIMIT = 2")} <= made
    assert ("Range.small", "return self.number < LIMIT", "return self.number <= LIMIT") in made
    assert ("Range.small", "@property", "") in made
    assert ("text", 'return word == "a"', 'return word != "a"') in made


def test_an_annotation_and_an_order_of_texts_are_no_mutants() -> None:
    """Nor is what is no Python: cosmic-ray takes the star of keyword arguments for a product."""
    assert not [after for _, _, after in changes(MODULE) if "def " in after or '< "a"' in after or '>= "a"' in after]
    assert changes("def f(a: int | None, *, b: int = 1) -> None:\n    pass\n") == {
        ("f", "def f(a: int | None, *, b: int = 1) -> None:", f"def f(a: int | None, *, b: int = {number}) -> None:")
        for number in (0, 2)
    }


def test_an_operator_is_left_out_by_name() -> None:
    assert changes(MODULE) - changes(MODULE, "core/NumberReplacer") == {
        ("", "LIMIT = 3", "LIMIT = 4"),
        ("", "LIMIT = 3", "LIMIT = 2"),
    }


def test_every_mutant_has_a_name_of_its_own() -> None:
    twice = MODULE + "\n\nclass Other:\n    A = 1\n    B = 2\n    A = 1\n"
    names = [mutant.name for mutant in mutants(twice)]
    assert len(set(names)) == len(names)
    assert {name.number for name in names if name.before == "A = 1"} == {1, 2}


def test_every_mutant_is_the_module_with_one_change() -> None:
    for mutant in mutants(MODULE):
        assert mutant.source != MODULE
        assert ast.parse(mutant.source).body
        assert MODULE.splitlines()[mutant.line - 1].strip() == mutant.name.before


def test_a_function_begins_with_its_decorators() -> None:
    assert [(span.name, span.first, span.last, span.body) for span in spans(MODULE)] == [
        ("Range", 4, 7, 6),
        ("Range.small", 5, 7, 7),
        ("text", 10, 11, 11),
    ]


SURVIVOR = '[[survivors]]\nmodule = "m"\nbefore = "a"\nafter = "b"\nreason = "equal"\n'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x", "TOMLDecodeError"),
        ("", "KeyError: 'modules'"),
        ("[modules]\n[more]\n", "unknown: more"),
        (f"[modules]\n{SURVIVOR}", "unknown: m"),
        (f"[modules]\nm = []\n{SURVIVOR}{SURVIVOR}", "recorded twice"),
        (f"[modules]\nm = []\n{SURVIVOR.replace('equal', ' ')}", "without a reason"),
        (f"[modules]\nm = []\n{SURVIVOR}other = 1\n", "unknown: other"),
    ],
)
def test_a_wrong_record_is_refused(text: str, line: str) -> None:
    with pytest.raises(RecordError, match=line):
        mutant_record.parse(text)


def test_new_survivors_and_stale_records_are_differences() -> None:
    module = mutant_record.Module("m", (), {Name("f", "a", "b"): "equal", Name("f", "a", "c"): "equal"})
    names = [Name("f", "a", after) for after in "bcd"]
    assert mutant_record.review(module, names, names, names[:2]) == mutant_record.Review((), ())
    assert mutant_record.review(module, names, names, names[1:]) == mutant_record.Review((names[2],), (names[0],))
    # a change that is no mutant any more
    assert mutant_record.review(module, names[:1], names[:1], names[:1]).stale == (names[1],)


def test_a_recorded_mutant_that_was_not_tried_is_not_stale() -> None:
    names = [Name("f", "a", after) for after in "bc"]
    module = mutant_record.Module("m", (), dict.fromkeys(names, "equal"))
    assert mutant_record.review(module, names, names[:1], ()) == mutant_record.Review((), (names[0],))


def test_a_sample_is_the_same_for_the_same_seed() -> None:
    todo = [Trial("m", mutant, {}, "") for mutant in mutants(MODULE)]
    once = sample(todo, 5, 7)
    assert once == sample(todo, 5, 7) != sample(todo, 5, 8)
    assert once == [trial for trial in todo if trial in once]
    assert len(once) == 5
    assert sample(todo, None, 7) == sample(todo, 1000, 7) == todo


def test_this_projects_record_names_files_that_exist() -> None:
    """That its mutants are there is seen by the command, which makes them all."""
    record = mutant_record.parse((ROOT / RECORD).read_text())
    assert record.modules
    for module in record.modules:
        assert [path for path in (module.path, *module.tests) if not (ROOT / path).is_file()] == []


def test_a_trial_that_loops_is_ended(tmp_path: Path) -> None:
    def forever() -> int:
        return next(number for number in itertools.count() if number < 0)

    assert mutant_trials.run(tmp_path, forever, tmp_path / "log", cpu=1) is None
    assert mutant_trials.run(tmp_path, lambda: 5, tmp_path / "log", cpu=1) == 5


def test_what_a_trial_has_started_ends_with_it(tmp_path: Path) -> None:
    """The pipe's writing end is closed only when the trial's child is gone, too."""
    reading, writing = os.pipe()

    def task() -> int:
        subprocess.Popen(["sleep", "1000"], pass_fds=[writing])
        return 0

    assert mutant_trials.run(tmp_path, task, tmp_path / "log") == 0
    os.close(writing)
    assert os.read(reading, 1) == b""
    os.close(reading)


def project(root: Path, survivors: str) -> Path:
    (root / "harness").mkdir()
    (root / "tests").mkdir()
    (root / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (root / "harness" / "toy.py").write_text("LIMIT = 3\n\n\ndef small(number):\n    return number < LIMIT\n")
    (root / "tests" / "test_toy.py").write_text(
        "import toy\n\n\ndef test_small():\n    assert toy.small(2)\n    assert not toy.small(4)\n"
    )
    (root / RECORD).write_text(f'[modules]\n"harness/toy.py" = ["tests/test_toy.py"]\n{survivors}')
    return root


def command(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, str(ROOT / "harness/tools/harness_mutants.py"), "--root", str(root), "--jobs", "1"]
    return subprocess.run([*program, *arguments], capture_output=True, text=True, check=False)


def survivor(before: str, after: str, place: str = "") -> str:
    return (
        f'[[survivors]]\nmodule = "harness/toy.py"\nin = "{place}"\nbefore = "{before}"\nafter = "{after}"\n'
        'reason = "a test would be needed"\n'
    )


def test_survivors_are_held_against_the_record(tmp_path: Path) -> None:
    """Of the function's mutants `<=` alone survives, of the module's `LIMIT = 4`; nothing is written beside them."""
    recorded = survivor("return number < LIMIT", "return number <= LIMIT", "small")
    root = project(tmp_path, recorded + survivor("LIMIT = 3", "LIMIT = 2"))
    before = sorted(root.rglob("*"))
    result = command(root)
    assert result.returncode == 1, result.stderr
    assert "survived: harness/toy.py:1 module: LIMIT = 3\n        -> LIMIT = 4\n" in result.stdout
    assert "recorded as a survivor, but killed or gone: harness/toy.py module: LIMIT = 3\n" in result.stdout
    assert "-> number <= LIMIT" not in result.stdout
    assert "harness/toy.py: 77.8 % of 9 killed (7 killed, 2 survived)" in result.stdout
    assert sorted(root.rglob("*")) == before
    (root / RECORD).write_text((root / RECORD).read_text().replace("LIMIT = 2", "LIMIT = 4"))
    green = command(root, "toy.py", "--sample", "3", "--seed", "5")
    assert green.returncode == 0
    assert "3 of 9 mutants of 1 modules" in green.stdout


def test_red_tests_are_no_verdict(tmp_path: Path) -> None:
    root = project(tmp_path, "")
    (root / "tests" / "test_toy.py").write_text("def test_x():\n    assert False\n")
    result = command(root)
    assert result.returncode == 3
    assert "red without a mutant" in result.stderr


def test_a_module_that_is_not_reviewed_is_tried_by_name() -> None:
    record = mutant_record.parse('[modules]\n"a/x.py" = []\n[unreviewed]\n"a/y.py" = ["t"]\n')
    assert [module.path for module in chosen(record, [])] == ["a/x.py"]
    assert [(module.path, module.tests) for module in chosen(record, ["y.py"])] == [("a/y.py", ("t",))]


def test_an_unknown_module_is_wrong_usage(tmp_path: Path) -> None:
    result = command(project(tmp_path, ""), "other.py")
    assert (result.returncode, result.stderr) == (4, f"{RECORD}: no module other.py\n")
