"""Two builds of an object are compared by what they need, and by what runs measured of exactly these two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kernel_matrix.commands import compatibility, object_comparison
from kernel_matrix.results import document
from kernel_matrix.results.document import Column
from kernel_matrix.results.evidence import ObjectEvidence
from kernel_matrix.shared import wire
from kernel_matrix.shared.bpf.compatibility import Compatibility, Need
from kernel_matrix.shared.bpf.costs import Cost
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.project import Project
from tests.projects import below
from tests.test_compatibility import folder, page
from tests.test_sarif import document as result_set

COST = Cost(20_113, 100, 50, 64, 800, 1600, 2.0)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose objects are pages: ``old.o``, and ``new.o``, which no longer needs a helper or a program."""
    changed = replace(
        page(),
        sha256="2" * 64,
        programs=tuple(program for program in page().programs if program.name != "unknown"),
        requirements=tuple(one for one in page().requirements if one.need is not Need.HELPER),
    )
    pages = {"old.o": replace(page(), sha256="1" * 64), "new.o": changed}

    def of_object(_: Project, path: Path, names: list[str]) -> Compatibility:
        assert not names
        return pages[path.name]

    monkeypatch.setattr(compatibility, "of_object", of_object)
    for name in pages:
        (tmp_path / name).write_bytes((folder() / "x.o").read_bytes())
    return below(tmp_path)


def run(project: Project, name: str, sha256: str, cost: Cost, kernel: str = "6.12", key: str = "fixed") -> None:
    column = Column(kernel, "", "", "", {key: cost, "of_another_object": COST, "build/y.bpf.o::fixed": COST})
    evidence = ObjectEvidence("build/x.bpf.o", sha256, (kernel,))
    place = project.results / name
    place.mkdir(parents=True)
    wire.write(place / document.NAME, replace(result_set(objects=(evidence,)), columns=(column,)))


def compare(project: Project, tmp_path: Path) -> tuple[list[str], int]:
    output = object_comparison.compare(project, tmp_path / "old.o", tmp_path / "new.o")
    return list(output.lines), output.status


def test_costs_of_exactly_these_two_are_compared(project: Project, tmp_path: Path) -> None:
    """Newer runs of another content do not count; of several runs of the same content the newest does."""
    run(project, "20260101T000000-1", "1" * 64, replace(COST, instructions=1))
    run(project, "20260102T000000-1", "1" * 64, COST)
    run(project, "20260103T000000-1", "2" * 64, replace(COST, instructions=193_402))
    run(project, "20260104T000000-1", "3" * 64, replace(COST, instructions=7))
    lines, status = compare(project, tmp_path)
    assert [line for line in lines if line.startswith("6.12: ")] == ["6.12: fixed: instructions 20,113 -> 193,402"]
    assert f"{tmp_path / 'old.o'}: measured by results/20260102T000000-1" in lines
    assert status == 1


def test_costs_of_an_objects_own_cells_are_compared(project: Project, tmp_path: Path) -> None:
    run(project, "20260101T000000-1", "1" * 64, COST)
    run(project, "20260102T000000-1", "2" * 64, replace(COST, peak_states=70), key="build/x.bpf.o::fixed")
    lines, _ = compare(project, tmp_path)
    assert [line for line in lines if line.startswith("6.12: ")] == ["6.12: fixed: peak_states 50 -> 70"]


def test_the_link_to_the_last_run_is_no_run_of_its_own(project: Project, tmp_path: Path) -> None:
    run(project, "20260101T000000-1", "1" * 64, COST)
    (project.results / "latest").symlink_to("20260101T000000-1")
    lines, _ = compare(project, tmp_path)
    assert f"{tmp_path / 'old.o'}: measured by results/20260101T000000-1" in lines


def test_growth_that_the_gate_allows_is_shown_and_green(project: Project, tmp_path: Path) -> None:
    run(project, "20260101T000000-1", "1" * 64, COST)
    run(project, "20260102T000000-1", "2" * 64, replace(COST, instructions=20_114))
    lines, status = compare(project, tmp_path)
    assert "6.12: fixed: instructions 20,113 -> 20,114" in lines
    assert status == 0


def test_what_was_not_measured_is_called_so(project: Project, tmp_path: Path) -> None:
    """A run of another kernel is no comparison, either."""
    run(project, "20260101T000000-1", "1" * 64, COST, kernel="6.1")
    lines, status = compare(project, tmp_path)
    assert f"{tmp_path / 'new.o'}: costs not measured: no run here has that object" in lines
    assert status == 0
    run(project, "20260102T000000-1", "2" * 64, COST)
    lines, status = compare(project, tmp_path)
    assert not [line for line in lines if line.startswith(("6.1: ", "6.12: "))]


def test_what_the_new_build_needs_otherwise_is_named(project: Project, tmp_path: Path) -> None:
    lines, _ = compare(project, tmp_path)
    assert "program gone: unknown" in lines
    assert "hook: needs no more: helper bpf_newest" in lines


def test_an_object_and_a_result_set_are_not_compared(tmp_path: Path) -> None:
    binary = folder() / "x.o"
    assert object_comparison.objects(str(binary), str(binary)) == (binary, binary)
    assert object_comparison.objects("baseline", str(tmp_path)) is None
    with pytest.raises(ManifestError, match="two objects can be compared, or two result sets"):
        object_comparison.objects(str(binary), "baseline")
