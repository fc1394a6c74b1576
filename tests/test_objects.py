"""Compiling: once, and with the compiler's own message when it fails."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kernel_matrix.objects import build
from kernel_matrix.shared.errors import BuildError, ToolMissing

SOURCE = '#define SEC(name) __attribute__((section(name), used))\nint first SEC(".data.first") = 1;\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "bpf" / "fixtures").mkdir(parents=True)
    (tmp_path / "bpf" / "one.bpf.c").write_text(SOURCE)
    (tmp_path / "bpf" / "fixtures" / "two.bpf.c").write_text(SOURCE)
    return tmp_path


def test_objects_have_the_names_of_their_sources(project: Path) -> None:
    found = build.build_all(project)
    assert found == {
        "one": project / "build" / "one.bpf.o",
        "fixtures/two": project / "build" / "fixtures" / "two.bpf.o",
    }
    for path in found.values():
        # e_machine of an ELF header (linux/elf-em.h): EM_BPF is 247
        assert int.from_bytes(path.read_bytes()[18:20], "little") == 247


def test_only_what_changed_is_compiled_again(project: Path) -> None:
    before = {name: path.stat().st_mtime_ns for name, path in build.build_all(project).items()}
    assert {name: path.stat().st_mtime_ns for name, path in build.build_all(project).items()} == before
    (project / "bpf" / "one.bpf.c").write_text(SOURCE + "int second = 2;\n")
    after = {name: path.stat().st_mtime_ns for name, path in build.build_all(project).items()}
    assert [name for name in before if before[name] != after[name]] == ["one"]
    (project / "bpf" / "shared.h").write_text("")
    assert all(path.stat().st_mtime_ns != after[name] for name, path in build.build_all(project).items())


def test_what_does_not_compile_shows_clangs_message_and_keeps_the_old_object(project: Path) -> None:
    old = build.build_all(project)["one"].read_bytes()
    (project / "bpf" / "one.bpf.c").write_text("int first = undeclared;\n")
    with pytest.raises(BuildError, match="use of undeclared identifier 'undeclared'") as caught:
        build.build_all(project)
    assert str(caught.value).startswith("one.bpf.c: clang failed\n")
    assert caught.value.exit_status == 1
    assert (project / "build" / "one.bpf.o").read_bytes() == old
    assert [path.name for path in (project / "build").iterdir() if path.name.startswith(".")] == []


def test_a_warning_is_an_error(project: Path) -> None:
    (project / "bpf" / "one.bpf.c").write_text("static int unused;\n")
    with pytest.raises(BuildError, match="unused variable"):
        build.build_all(project)


def test_no_sources_and_no_compiler_are_one_line_each(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(project / "bpf")
    with pytest.raises(BuildError, match=r"^no BPF sources in "):
        build.build_all(project)
    build._compiler.cache_clear()
    monkeypatch.setenv("PATH", str(project))
    with pytest.raises(ToolMissing, match=r"^clang is missing: run `nox -s bootstrap`$"):
        build._compiler()
    build._compiler.cache_clear()
