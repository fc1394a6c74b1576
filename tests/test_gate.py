"""Objects of one's own: a cell for each object and kernel, and one verdict. No guest is started here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kernel_matrix.commands import gate, try_object
from kernel_matrix.plan import preparation
from kernel_matrix.plan.guest_list import RunRequest
from kernel_matrix.plan.preparation import Plan, PlannedGuest
from kernel_matrix.report.run_folder import KernelFacts, RunFacts
from kernel_matrix.results import document
from kernel_matrix.shared.cells import Outcome
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.project import Project
from tests.projects import below

REFUSED = """b.bpf.o on 6.1.0, uid 0
first (xdp): attached
second (kprobe): refused at load: EINVAL
  cause: the kernel has no such helper"""


@pytest.fixture
def objects(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "objects" / name for name in ("a.bpf.o", "sub/b.bpf.o")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x7fELF")
    return paths


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[RunRequest]]:
    """Let guests answer without being there; returns the request of the runs."""
    wished: list[RunRequest] = []

    def let(answers: dict[tuple[str, str], Any], missing: dict[str, str] | None = None) -> list[RunRequest]:
        def prepare(_: Project, request: RunRequest, *__: object, **___: object) -> Plan:
            wished.append(request)
            names = [name for name in request.kernels if name not in (missing or {})]
            guests = [PlannedGuest(name, f"{name}.0", frozenset(), Path("spec"), Path("ending")) for name in names]
            facts = RunFacts("emulated", 1, tuple(KernelFacts(name, f"{name}.0", "1") for name in names))
            return Plan(tuple(guests), Path(), missing or {}, frozenset(), {}, facts, ())

        def try_in_guest(guest: PlannedGuest, path: Path) -> tuple[bool, str]:
            verdict = answers.get((guest.kernel, path.name), (True, "attached"))
            if isinstance(verdict, Exception):
                raise verdict
            return verdict  # type: ignore[no-any-return]

        monkeypatch.setattr(preparation, "prepare", prepare)
        monkeypatch.setattr(try_object, "try_in_guest", try_in_guest)
        return wished

    return let


def cells(root: Path) -> dict[tuple[str, str], tuple[Outcome, str]]:
    rows = document.read(root / "results" / "latest").cells
    return {(cell.kernel, cell.test): (cell.outcome, cell.detail.partition("\n")[0]) for cell in rows}


def test_all_that_attaches_is_green(
    tmp_path: Path, objects: list[Path], answer: Callable[..., list[RunRequest]]
) -> None:
    output: list[str] = []
    wished = answer({})
    assert gate.run(below(tmp_path), ["5.10", "6.1"], objects, output.append) == 0
    assert wished[0].kernels == ("5.10", "6.1")
    assert cells(tmp_path) == {
        (kernel, name): (Outcome.PASS, "") for kernel in ("5.10", "6.1") for name in ("a.bpf.o", "sub/b.bpf.o")
    }
    assert output[-1] == "4 pass"
    names = {path.name for path in (tmp_path / "results" / "latest").iterdir()}
    assert {"matrix.md", "matrix.json", "junit.xml", "results.jsonl"} <= names


def test_a_refusal_is_red_and_its_line_comes_first(
    tmp_path: Path, objects: list[Path], answer: Callable[..., list[RunRequest]]
) -> None:
    output: list[str] = []
    answer({("6.1", "b.bpf.o"): (False, REFUSED)})
    assert gate.run(below(tmp_path), ["5.10", "6.1"], objects, output.append) == 1
    red = {key: value for key, value in cells(tmp_path).items() if not value[0].green}
    assert red == {("6.1", "sub/b.bpf.o"): (Outcome.FAIL, "second (kprobe): refused at load: EINVAL")}
    assert any("6.1 sub/b.bpf.o: second (kprobe): refused at load: EINVAL" in line for line in output)
    assert "the kernel has no such helper" in (tmp_path / "results" / "latest" / "junit.xml").read_text()


def test_lost_guests_and_missing_kernels_are_red_alone(
    tmp_path: Path, objects: list[Path], answer: Callable[..., list[RunRequest]]
) -> None:
    """They are red, and no other cell changes."""
    answer({("6.1", "a.bpf.o"): EOFError("gone")}, {"7.3": "the mirror has no 7.3"})
    assert gate.run(below(tmp_path), ["6.1", "7.3"], objects, lambda _: None) == 1
    outcomes = cells(tmp_path)
    assert outcomes["6.1", "a.bpf.o"] == (
        Outcome.LOST,
        "its guest gave no answer (gone); console: console/6.1.log",
    )
    assert outcomes["6.1", "sub/b.bpf.o"] == (Outcome.PASS, "")
    assert outcomes["7.3", "image"] == (Outcome.ERROR, "the mirror has no 7.3")


def test_a_kernel_that_is_not_to_be_had_is_no_verdict(
    tmp_path: Path, objects: list[Path], answer: Callable[..., list[RunRequest]]
) -> None:
    answer({}, {"7.3": "the mirror has no 7.3"})
    assert gate.run(below(tmp_path), ["6.1", "7.3"], objects, lambda _: None) == 3


def test_no_answer_at_all_is_no_verdict(
    tmp_path: Path, objects: list[Path], answer: Callable[..., list[RunRequest]]
) -> None:
    answer({("6.1", path.name): EOFError("gone") for path in objects})
    assert gate.run(below(tmp_path), ["6.1"], objects, lambda _: None) == 3


def test_a_command_line_of_the_tests_own_can_be_named(
    tmp_path: Path, objects: list[Path], answer: Callable[..., list[RunRequest]]
) -> None:
    wished = answer({})
    gate.run(below(tmp_path), ["6.1+lockdown_integrity"], objects, lambda _: None)
    gate.run(below(tmp_path / "again"), ["6.1"], objects, lambda _: None)
    assert [request.arguments for request in wished] == [("suites",), ()]


def test_what_is_no_object_is_one_line_before_anything_is_made(tmp_path: Path, objects: list[Path]) -> None:
    objects[1].write_text("text")
    with pytest.raises(ManifestError, match=r"sub/b\.bpf\.o: not an object file$"):
        gate.run(below(tmp_path), ["6.1"], objects, lambda _: None)
    assert not (tmp_path / "results").exists()


def test_names_are_as_short_as_they_can_be(objects: list[Path]) -> None:
    assert list(gate.names_of(objects)) == ["a.bpf.o", "sub/b.bpf.o"]
    assert list(gate.names_of(objects[1:])) == ["b.bpf.o"]
