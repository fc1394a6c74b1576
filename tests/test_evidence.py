"""What a run was made of: digests of the files that were used, releases that guests reported, and a statement of it."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix import images
from kernel_matrix.images import KernelImage, RootImage
from kernel_matrix.objects import object_file
from kernel_matrix.plan import evidence
from kernel_matrix.report import run_folder
from kernel_matrix.report.formats import statement
from kernel_matrix.results import document as documents_file
from kernel_matrix.results import matrix
from kernel_matrix.results.document import Column, Document
from kernel_matrix.results.evidence import Digest, ObjectEvidence, ProgramSource
from kernel_matrix.shared.outcomes.cells import Cell, Outcome
from kernel_matrix.shared.project import Project
from kernel_matrix.vm.guests import GuestRecord
from tests import core_source
from tests.test_document import documents, sha256s
from tests.test_relocation import folder as core_objects
from tests.test_sarif import OBJECT, document

objects = st.builds(
    ObjectEvidence,
    st.sampled_from(["build/a.bpf.o", "build/b.bpf.o"]),
    sha256s,
    st.lists(st.sampled_from("xyz")).map(tuple),
)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def of(value: Document) -> dict[str, Any]:
    text = statement.statement(value)
    assert text is not None
    found: dict[str, Any] = json.loads(text)
    return found


# -- the digests


def test_a_digest_is_that_of_the_content(tmp_path: Path) -> None:
    """Kept beside the file, and taken again once the file is another."""
    file = tmp_path / "kernel"
    for content in (b"one", b"another one"):
        file.write_bytes(content)
        assert [images.content_digest(file) for _ in range(2)] == [sha256(content)] * 2
    # as long, at the same time, and another file
    state = file.stat()
    changed = tmp_path / "new"
    changed.write_bytes(b"another_one")
    os.utime(changed, ns=(state.st_atime_ns, state.st_mtime_ns))
    changed.replace(file)
    assert images.content_digest(file) == sha256(b"another_one")


def test_a_kept_digest_saves_reading_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "kernel"
    file.write_bytes(b"x")
    wanted = images.content_digest(file)
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("it was read again"))
    assert images.content_digest(file) == wanted


def image(folder: Path, config: bytes) -> KernelImage:
    for name, content in (("vmlinuz", b"the kernel"), ("modules", b"its modules"), ("config", config)):
        (folder / name).write_bytes(content)
    return KernelImage("6.1", "6.1.0", "1", folder / "vmlinuz", folder / "modules", folder / "config")


def test_a_guest_is_named_by_all_its_parts(tmp_path: Path) -> None:
    loader = tmp_path / "aya"
    loader.write_bytes(b"a loader")
    found = evidence.of_guest(
        image(tmp_path, b"CONFIG_BPF=y\n"), RootImage(tmp_path / "root", "f" * 64), {"aya": loader}
    )
    assert {one.name: one.sha256 for one in found} == {
        "kernel": sha256(b"the kernel"),
        "modules": sha256(b"its modules"),
        "configuration": sha256(b"CONFIG_BPF=y\n"),
        "image": "f" * 64,
        "loader aya": sha256(b"a loader"),
    }


def test_an_unavailable_configuration_has_no_digest(tmp_path: Path) -> None:
    found = evidence.of_guest(image(tmp_path, b""), RootImage(tmp_path / "root", "f" * 64), {})
    assert "configuration" not in {one.name for one in found}


def test_the_configuration_is_the_files_that_exist(tmp_path: Path) -> None:
    (tmp_path / "kernel-matrix.toml").write_bytes(b"tests = []")
    (tmp_path / "kernels.toml").write_bytes(b"[gate]")
    project = Project(tmp_path, "kernel-matrix.toml", "", tmp_path)
    assert evidence.of_project(project) == (
        Digest("kernel-matrix.toml", sha256(b"tests = []")),
        Digest("kernels.toml", sha256(b"[gate]")),
    )


def test_the_engines_own_files_have_the_same_name_everywhere(tmp_path: Path) -> None:
    (tmp_path / "defaults").mkdir()
    (tmp_path / "defaults" / "kernels.toml").write_bytes(b"[gate]")
    project = Project(tmp_path / "project", "kernel-matrix.toml", "", tmp_path / "defaults")
    assert evidence.of_project(project) == (Digest("defaults/kernels.toml", sha256(b"[gate]")),)


def test_an_object_that_cannot_be_read_has_no_sources(tmp_path: Path) -> None:
    path = tmp_path / "build" / "x.bpf.o"
    path.parent.mkdir()
    path.write_bytes(b"\x7fELF and nothing more")
    project = Project(tmp_path, "kernel-matrix.toml", "", tmp_path)
    found = evidence.of_objects(project, {"x": path, "engine/probes": path}, ["6.1"])
    assert found == (ObjectEvidence("build/x.bpf.o", sha256(path.read_bytes()), ("6.1",)),)


@given(st.lists(objects))
def test_joined_objects_are_each_content_once(found: list[ObjectEvidence]) -> None:
    """No content and no kernel is lost, and none is added."""
    joined = evidence.joined(found)
    assert {(one.name, one.sha256) for one in joined} == {(one.name, one.sha256) for one in found}
    assert len({(one.name, one.sha256) for one in joined}) == len(joined)
    for one in joined:
        same = [other for other in found if (other.name, other.sha256) == (one.name, one.sha256)]
        assert sorted(one.kernels) == sorted({kernel for other in same for kernel in other.kernels})


# -- in the run's folder


def test_a_run_records_what_its_guests_reported(tmp_path: Path) -> None:
    """The requested release is the image's, the observed ones are the guests'; one that reported none adds none."""
    run = run_folder.RunDirectory.create(tmp_path)
    parts = (Digest("kernel", "c" * 64),)
    kernels = (
        run_folder.KernelFacts("6.1", "6.1.0-56", "1", digests=parts),
        run_folder.KernelFacts("7.3", "7.3.4", "1"),
    )
    facts = run_folder.RunFacts(
        "kvm", 1, kernels, objects=(OBJECT,), configuration=(Digest("pyproject.toml", "d" * 64),)
    )
    cells = [Cell(kernel, "a.py::test", Outcome.PASS) for kernel in ("6.1", "7.3")]
    judged = matrix.Matrix.of(cells, [], ["6.1", "7.3"])
    guests = [GuestRecord("6.1", "cold", "", 1.0, release=release) for release in ("6.1.0-57", "6.1.0-57", "")]
    run.finish(run.document(judged, facts), facts, (*guests, GuestRecord("7.3", "cold", "", 1.0)))
    found = documents_file.read(run.path)
    assert [(column.release, column.observed, column.digests) for column in found.columns] == [
        ("6.1.0-56", ("6.1.0-57",), parts),
        ("7.3.4", (), ()),
    ]
    assert (found.objects, found.configuration) == ((OBJECT,), (Digest("pyproject.toml", "d" * 64),))
    kernel = next(one for one in of(found)["predicate"]["configuration"] if one["name"] == "6.1/kernel")
    assert kernel["digest"] == {"sha256": "c" * 64}
    assert kernel["annotations"] | {"requested": "6.1.0-56", "observed": ["6.1.0-57"]} == kernel["annotations"]


def test_a_run_without_objects_has_no_statement(tmp_path: Path) -> None:
    run = run_folder.RunDirectory.create(tmp_path)
    facts = run_folder.RunFacts("kvm", 1, ())
    run.finish(run.document(matrix.Matrix.of([], [], []), facts), facts, ())
    assert {path.name for path in run.path.glob("*.sarif")} == {"matrix.sarif"}
    assert not (run.path / "test-result.intoto.json").exists()


# -- the statement


@given(documents, st.lists(objects, min_size=1).map(tuple))
def test_a_statement_has_every_cell_that_counts(value: Document, tested: tuple[ObjectEvidence, ...]) -> None:
    found = of(replace(value, objects=tested))
    assert found.keys() == {"_type", "subject", "predicateType", "predicate"}
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert [subject["digest"]["sha256"] for subject in found["subject"]] == [one.sha256 for one in tested]
    predicate = found["predicate"]
    assert predicate.keys() == {"result", "configuration", "passedTests", "warnedTests", "failedTests"}
    lists = {
        "passedTests": [cell for cell in value.cells if cell.outcome in {Outcome.PASS, Outcome.REFUSED}],
        "warnedTests": [cell for cell in value.cells if cell.outcome is Outcome.XFAIL],
        "failedTests": [cell for cell in value.cells if not cell.outcome.green],
    }
    assert {name: len(predicate[name]) for name in lists} == {name: len(cells) for name, cells in lists.items()}
    # a descriptor without a digest would say nothing
    assert all(one["digest"]["sha256"] for one in predicate["configuration"])


@pytest.mark.parametrize(
    ("status", "outcomes", "result"),
    [
        (0, [Outcome.PASS, Outcome.SKIP], "PASSED"),
        (0, [Outcome.REFUSED], "PASSED"),
        (0, [Outcome.PASS, Outcome.XFAIL], "WARNED"),
        (0, [Outcome.SKIP], "WARNED"),
        (0, [], "WARNED"),
        (1, [Outcome.PASS], "FAILED"),
        (1, [Outcome.FAIL], "FAILED"),
        (2, [Outcome.PASS], "FAILED"),
        (3, [], "FAILED"),
    ],
)
def test_the_result_is_that_of_the_run(status: int, outcomes: list[Outcome], result: str) -> None:
    """A run that was interrupted has proved nothing; nor has one in which nothing ran."""
    cells = [Cell("6.1", f"a.py::test_{number}", outcome) for number, outcome in enumerate(outcomes)]
    assert of(document(*cells, status=status))["predicate"]["result"] == result


def test_a_test_is_named_as_it_is_run_again() -> None:
    cells = [Cell("6.1", test, Outcome.PASS) for test in ("a.py::test_x[native]", "a.py::test_y", "a.py")]
    assert of(document(*cells))["predicate"]["passedTests"] == [
        "a.py::test_x[6.1-native]",
        "a.py::test_y[6.1]",
        "a.py[6.1]",
    ]


def test_digests_of_all_kernels_are_the_configuration() -> None:
    columns = tuple(
        Column(kernel, "r", "v", "", {}, digests=(Digest("kernel", kernel * 2), Digest("image", "i")))
        for kernel in "xy"
    )
    value = replace(document(), columns=columns, configuration=(Digest("pyproject.toml", "p"),))
    found = of(value)["predicate"]["configuration"]
    assert [(one["name"], one["digest"]["sha256"]) for one in found] == [
        ("pyproject.toml", "p"), ("x/kernel", "xx"), ("x/image", "i"), ("y/kernel", "yy"), ("y/image", "i"),
    ]  # fmt: skip


def test_objects_that_the_table_names_are_evidence_too(tmp_path: Path) -> None:
    """Each file once, also where the project compiled it."""
    for name in ("build/x.bpf.o", "others/y.bpf.o", "others/z.bpf.o"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    project = Project(tmp_path, "kernel-matrix.toml", "", tmp_path, objects=("build/*.o", "others/y.bpf.o"))
    tested = evidence.of_objects(project, {"x": tmp_path / "build" / "x.bpf.o"}, ["6.1"])
    assert [(one.name, one.sha256) for one in tested] == [
        (name, sha256(name.encode())) for name in ("build/x.bpf.o", "others/y.bpf.o")
    ]


def test_a_program_has_the_lines_of_its_own_instructions(tmp_path: Path) -> None:
    """Two programs of one section: each from its own first line on, counted from its own first instruction."""
    path = tmp_path / "build" / "core.bpf.o"
    path.parent.mkdir()
    path.write_bytes((core_objects() / "local.o").read_bytes())
    project = Project(core_objects(), "kernel-matrix.toml", "", tmp_path)
    (tested,) = evidence.with_sources(project, evidence.of_objects(project, {"core": path}, ["6.1", "7.3"]))
    assert (tested.kernels, tested.files) == (("6.1", "7.3"), ("local.c",))
    source = core_source.LOCAL.splitlines()
    places = {program.name: program.lines for program in tested.programs}
    assert places.keys() == {"fields", "types"}
    begin = source.index('SEC("kprobe") int types(void *ctx)') + 1
    for name, lines in places.items():
        assert lines[0][0] == 0
        assert [instruction for instruction, _, _ in lines] == sorted({instruction for instruction, _, _ in lines})
        assert {line >= begin for _, _, line in lines} == {name == "types"}


def test_a_program_has_the_lines_that_the_whole_reader_has(tmp_path: Path) -> None:
    """Also its own functions' order: .text, which programs call, is no program."""
    data = (core_objects() / "local.o").read_bytes()
    whole = object_file.read(data, "local.o")
    assert object_file.read_lines(data, "local.o") == [
        (program, whole.extension.lines[program.section]) for program in whole.programs
    ]


@pytest.mark.parametrize("deleted", [True, False])
def test_an_object_that_guests_did_not_get_has_no_sources(tmp_path: Path, *, deleted: bool) -> None:
    """It was compiled again, or deleted, while guests started: its digest stays that of what they got."""
    path = tmp_path / "x.bpf.o"
    path.write_bytes((core_objects() / "local.o").read_bytes())
    project = Project(tmp_path, "kernel-matrix.toml", "", tmp_path)
    bare = evidence.of_objects(project, {"x": path}, ["6.1"])
    assert evidence.with_sources(project, bare) != bare
    # an object with the same programs, and one byte behind it
    path.unlink() if deleted else path.write_bytes(path.read_bytes() + b"\0")
    assert evidence.with_sources(project, bare) == bare


def test_what_another_machine_has_read_is_kept(tmp_path: Path) -> None:
    """The controller may have the same file, compiled from other sources."""
    path = tmp_path / "x.bpf.o"
    path.write_bytes((core_objects() / "local.o").read_bytes())
    project = Project(tmp_path, "kernel-matrix.toml", "", tmp_path)
    (bare,) = evidence.of_objects(project, {"x": path}, ["6.1"])
    theirs = replace(bare, files=("theirs.c",), programs=(ProgramSource("fields", ((0, 0, 7),)),))
    assert evidence.with_sources(project, (theirs,)) == (theirs,)
