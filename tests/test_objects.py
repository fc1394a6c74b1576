"""Compiling: once, and with the compiler's own message when it fails."""

from __future__ import annotations

import ast
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from kernel_matrix.config.project import find
from kernel_matrix.objects import build
from kernel_matrix.shared.errors import BuildError, ToolMissing
from kernel_matrix.shared.project import Project
from tests.projects import below

SOURCE = '#define SEC(name) __attribute__((section(name), used))\nint first SEC(".data.first") = 1;\n'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "probes.bpf.c").write_text(SOURCE)
    monkeypatch.setattr(build, "_ENGINE_SOURCES", tmp_path / "engine")
    (tmp_path / "bpf" / "fixtures").mkdir(parents=True)
    (tmp_path / "bpf" / "one.bpf.c").write_text(SOURCE)
    (tmp_path / "bpf" / "fixtures" / "two.bpf.c").write_text(SOURCE)
    return below(tmp_path, sources=tmp_path / "bpf")


def source(project: Project, name: str) -> Path:
    assert project.sources is not None
    return project.sources / name


def test_objects_have_the_names_of_their_sources(project: Project) -> None:
    objects = build.build_all(project)
    assert objects == {
        "one": project.build / "one.bpf.o",
        "fixtures/two": project.build / "fixtures" / "two.bpf.o",
        "engine/probes": project.build / "engine" / "probes.bpf.o",
    }
    for path in objects.values():
        # e_machine of an ELF header (linux/elf-em.h): EM_BPF is 247
        assert int.from_bytes(path.read_bytes()[18:20], "little") == 247


def test_only_what_changed_is_compiled_again(project: Project) -> None:
    before = {name: path.stat().st_mtime_ns for name, path in build.build_all(project).items()}
    assert {name: path.stat().st_mtime_ns for name, path in build.build_all(project).items()} == before
    source(project, "one.bpf.c").write_text(SOURCE + "int second = 2;\n")
    after = {name: path.stat().st_mtime_ns for name, path in build.build_all(project).items()}
    assert [name for name in before if before[name] != after[name]] == ["one"]
    source(project, "shared.h").write_text("")
    last = {name: path.stat().st_mtime_ns for name, path in build.build_all(project).items()}
    # a header of the project's is none of the engine's
    assert [name for name in after if after[name] != last[name]] == ["fixtures/two", "one"]


def test_the_same_sources_elsewhere_become_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept by an object's content serves every clone; BTF names the lines of functions by their file."""
    contents = []
    for name in ("here", "a longer name/there"):
        folder = tmp_path / name / "bpf" / "fixtures"
        folder.mkdir(parents=True)
        (folder / "helper.h").write_text("static __attribute__((always_inline)) int twice(int x) { return x + x; }\n")
        (folder / "one.bpf.c").write_text(
            '#include "helper.h"\n__attribute__((section("xdp"), used)) int program(int *ctx) { return twice(*ctx); }\n'
        )
        monkeypatch.chdir(tmp_path / name)
        project = below(tmp_path / name, sources=tmp_path / name / "bpf")
        contents.append({name: path.read_bytes() for name, path in build.build_all(project).items()})
    assert contents[0] == contents[1]
    assert b"bpf/fixtures/one.bpf.c" in contents[0]["fixtures/one"]
    assert b"bpf/fixtures/helper.h" in contents[0]["fixtures/one"]


def test_the_object_of_a_deleted_source_is_deleted(project: Project) -> None:
    build.build_all(project)
    foreign = project.build / "fixtures" / "foreign.bpf.o"
    foreign.write_bytes(b"\x7fELF")
    source(project, "fixtures/two.bpf.c").unlink()
    build.build_all(project)
    objects = {str(path.relative_to(project.build)) for path in project.build.rglob("*.bpf.*")}
    # what the harness has not compiled stays
    assert objects == {f"{name}.bpf.{end}" for name in ("one", "engine/probes") for end in ("o", "key")} | {
        "fixtures/foreign.bpf.o"
    }


def test_every_object_that_a_test_names_has_a_source() -> None:
    """A test that names an object without a source fails only in guests of a fresh clone."""
    here = find()
    named = set()
    for folder in here.tests:
        for path in (here.root / folder).rglob("*.py"):
            texts = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
            named |= {text for text in texts if isinstance(text, str) and re.fullmatch(r"(fixtures|engine)/\w+", text)}
    assert named
    assert named <= build.build_all(here).keys()


def test_a_source_has_flags_of_its_own(project: Project) -> None:
    before = {name: path.stat().st_mtime_ns for name, path in build.build_all(project).items()}
    flagged = replace(project, source_flags={"fixtures/two.bpf.c": ("-target", "bpfeb")})
    objects = build.build_all(flagged)
    assert [name for name in before if before[name] != objects[name].stat().st_mtime_ns] == ["fixtures/two"]
    # e_ident[EI_DATA] of an ELF header: 1 is little-endian, 2 big-endian
    assert {name: path.read_bytes()[5] for name, path in objects.items()} == {
        "one": 1,
        "fixtures/two": 2,
        "engine/probes": 1,
    }


def test_without_sources_there_are_the_engines_objects_only(project: Project) -> None:
    assert set(build.build_all(replace(project, sources=None))) == {"engine/probes"}


def test_the_engines_probes_have_their_objects() -> None:
    names = {path.name for path in build._ENGINE_SOURCES.glob("*.bpf.c")}
    assert names == {"capabilities.bpf.c", "probe_arena.bpf.c", "probe_preempted.bpf.c", "probes.bpf.c"}


def test_a_compile_error_shows_clangs_message(project: Project) -> None:
    """The old object stays."""
    old = build.build_all(project)["one"].read_bytes()
    source(project, "one.bpf.c").write_text("int first = undeclared;\n")
    with pytest.raises(BuildError, match="use of undeclared identifier 'undeclared'") as caught:
        build.build_all(project)
    assert str(caught.value).startswith("one.bpf.c: clang failed\n")
    assert caught.value.exit_status == 1
    assert (project.build / "one.bpf.o").read_bytes() == old
    assert [path.name for path in project.build.iterdir() if path.name.startswith(".")] == []


def test_a_warning_is_an_error_where_the_project_says_so(project: Project) -> None:
    source(project, "one.bpf.c").write_text("static int unused;\n")
    build.build_all(project)
    with pytest.raises(BuildError, match="unused variable"):
        build.build_all(replace(project, flags=("-Wall", "-Werror")))


def test_no_sources_and_no_compiler_are_one_line_each(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(source(project, ""))
    with pytest.raises(BuildError, match=r"^no BPF sources in "):
        build.build_all(project)
    build.compiler.cache_clear()
    monkeypatch.setenv("PATH", str(project.root))
    with pytest.raises(ToolMissing, match=r"^clang is missing: run `kernel-matrix bootstrap`$"):
        build.compiler()
    build.compiler.cache_clear()
