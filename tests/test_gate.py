"""Objects of one's own: a run of the matrix with them as its test files, of this project or of another folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel_matrix.commands import gate
from kernel_matrix.config import project as projects
from kernel_matrix.relay import payload
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from kernel_matrix.shared.project import ROOT_VARIABLE


@pytest.fixture
def objects(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "objects" / name for name in ("a.bpf.o", "sub/b.bpf.o")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x7fELF")
    (tmp_path / "objects" / "secret").write_text("not to be carried")
    return paths


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Begin in an empty folder, and restore the variables that a run sets."""
    for name in (ROOT_VARIABLE, projects.OBJECTS_VARIABLE):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield
    for name in (ROOT_VARIABLE, projects.OBJECTS_VARIABLE):
        os.environ.pop(name, None)


class Matrix:
    """Takes the words of a run."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def __call__(self, words: list[str]) -> int:
        self.words = words
        return 1


def test_objects_of_the_table_run_as_in_any_run(
    tmp_path: Path, objects: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kernel-matrix.toml").write_text('objects = ["objects/**/*.bpf.o"]')
    monkeypatch.chdir(tmp_path)
    matrix = Matrix()
    assert gate.run(["6.1"], [objects[1]], matrix, ["-x"]) == 1
    assert matrix.words == ["--kernel=6.1", "-x", str(objects[1])]
    assert projects.OBJECTS_VARIABLE not in os.environ


def test_other_objects_are_a_project_of_their_own(tmp_path: Path, objects: list[Path]) -> None:
    """Below the folder that they share: nothing else of it is carried, and no table is needed."""
    matrix = Matrix()
    gate.run(["6.1", "5.10"], objects, matrix)
    assert matrix.words == ["--kernel=6.1", "--kernel=5.10", *map(str, objects)]
    assert json.loads(os.environ[projects.OBJECTS_VARIABLE]) == ["a.bpf.o", "sub/b.bpf.o"]
    own = projects.find()
    assert own.root == (tmp_path / "objects").resolve()
    assert own.tests == ()
    assert not own.keeps_baselines
    assert [str(path) for path in payload.project_files(payload.of_project(own))] == ["a.bpf.o", "sub/b.bpf.o"]


def test_their_results_and_kernels_are_this_projects(
    tmp_path: Path, objects: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    (here / "kernel-matrix.toml").write_text("")
    matrix = Matrix()
    gate.run([], objects, matrix)
    assert f"--results={here.resolve() / 'results'}" in matrix.words
    assert f"--manifest={projects.DEFAULT_IMAGES}" in matrix.words


def test_an_object_below_the_project_stays_in_it(
    tmp_path: Path, objects: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kernel-matrix.toml").write_text(
        'tests = ["suites"]\n[object."a.bpf.o"]\nmodules = ["x"]\n[object."z.bpf.o"]'
    )
    monkeypatch.chdir(tmp_path)
    gate.run([], [objects[0]], Matrix())
    own = projects.find()
    assert own.root == tmp_path.resolve()
    assert (own.objects, own.tests) == (("objects/a.bpf.o",), ())
    assert own.object_table.of("objects/a.bpf.o").modules == ("x",)
    assert list(own.object_table.settings) == ["a.bpf.o"]


def test_what_is_no_object_is_one_line_before_anything_runs(objects: list[Path]) -> None:
    objects[1].write_text("text")
    matrix = Matrix()
    with pytest.raises(ManifestError, match=r"sub/b\.bpf\.o: not an object file$"):
        gate.run(["6.1"], objects, matrix)
    assert matrix.words == []


def test_only_the_report_of_a_diagnosis_is_output(
    objects: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An infrastructure failure has no report."""

    def matrix(words: list[str]) -> int:
        print("guests are started")
        return 3

    assert gate.diagnose(objects[0], "6.1", matrix) == (3, [])
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "guests are started\n")


def test_a_refusal_is_reported_once_with_its_remedy() -> None:
    """For all kernels, and all that is done with the program."""
    line, diagnosis = "refused at load: EINVAL: x: y; remedy: z", "cause: x: y\nremedy: z"
    cells = [
        Cell(kernel, f"x.bpf.o::p::{act}", Outcome.FAIL, detail=f"{line}\nmore", diagnosis=diagnosis)
        for kernel in ("5.10", "6.1")
        for act in ("load", "attach")
    ]
    cells.append(Cell("6.1", "x.bpf.o::q::attach", Outcome.PASS, observed=(("attached", "a socket"),)))
    assert gate.report(cells) == [
        "q on 6.1: attached: a socket",
        f"x.bpf.o::p on 5.10 6.1: {line}",
        "  cause: x: y",
        "  remedy: z",
    ]


def test_an_object_that_is_refused_as_a_whole_is_named_once() -> None:
    cells = [Cell("6.1", f"x.bpf.o::{name}::load", Outcome.FAIL, detail="refused at open") for name in ("p", "q")]
    assert gate.report(cells) == ["x.bpf.o on 6.1: refused at open"]
