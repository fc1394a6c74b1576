"""Compiling BPF programs in Rust: with programs of the tests' own in place of cargo, rustc and bpf-linker."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kernel_matrix.objects import rust
from kernel_matrix.shared.errors import BuildError, ManifestError
from kernel_matrix.shared.project import Project
from tests.projects import below

#: writes the object that cargo would, and what it was called with
CARGO = """
printf '%s\\n' "$*" >> "$CALLS"
env | grep -E '^(RUST|CARGO_|CALLS)' | sort > "$CALLS.environment"
touch Cargo.lock
folder=target/bpfel-unknown-none/release
mkdir -p $folder
cp "$OBJECT" $folder/counter
"""
RUSTC = """
case "$1" in
    --print) echo "$(dirname "$0")/sysroot" ;;
    *) printf 'rustc 1.96.0\\nLLVM version: %s\\n' "${LLVM:-22.1.8}" ;;
esac
"""


def program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh -eu\n{script}")
    path.chmod(0o755)


def an_object(machine: int = 247, sections: tuple[str, ...] = (".BTF", ".BTF.ext", ".maps", "license")) -> bytes:
    """Return an ELF file with empty sections of these names (linux/elf.h); 247 is EM_BPF."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in (*sections, ".shstrtab"))
    table = 64 + len(names)
    header = b"\x7fELF\2\1\1" + bytes(9)
    header += struct.pack(
        "<HHIQQQIHHHHHH", 1, machine, 1, 0, 0, table, 0, 64, 0, 0, 64, len(sections) + 2, len(sections) + 1
    )
    offsets = [names.index(b"\0" + name.encode() + b"\0") + 1 for name in (*sections, ".shstrtab")]
    entries = bytes(64)
    for offset in offsets[:-1]:
        entries += struct.pack("<IIQQQQIIQQ", offset, 1, 0, 0, 64, 0, 0, 0, 1, 0)
    return header + names + entries + struct.pack("<IIQQQQIIQQ", offsets[-1], 3, 0, 0, 64, len(names), 0, 0, 1, 0)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that is all of PATH but for the shell's own programs."""
    folder = tmp_path / "tools"
    program(folder / "cargo", CARGO)
    program(folder / "rustc", RUSTC)
    program(folder / "bpf-linker", "echo bpf-linker 0.13.0\n")
    program(folder / "llvm-strip", "exit 0\n")
    core = folder / "sysroot" / "lib" / "rustlib" / "bpfel-unknown-none" / "lib" / "libcore-1.rlib"
    core.parent.mkdir(parents=True)
    core.touch()
    for name in ("dirname", "env", "grep", "sort", "touch", "mkdir", "cp"):
        (folder / name).symlink_to(shutil.which(name) or "")
    (tmp_path / "made.o").write_bytes(an_object())
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("CARGO_HOME", str(tmp_path / "cargo"))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("OBJECT", str(tmp_path / "made.o"))
    monkeypatch.setattr(rust, "_SYSTEM", str(folder))
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Project:
    crate = tmp_path / "crates" / "counter"
    (crate / "src").mkdir(parents=True)
    (crate / "Cargo.toml").write_text('[package]\nname = "counter"\n')
    (crate / "src" / "main.rs").write_text("fn main() {}\n")
    (crate / "target").mkdir()
    (crate / "target" / "made").touch()
    return below(tmp_path, rust=("crates/counter",))


def calls(project: Project) -> list[str]:
    path = project.root / "calls"
    return path.read_text().splitlines() if path.exists() else []


def reason(project: Project) -> str:
    assert rust.build_all(project) == {}
    assert not (project.build / "rust" / "counter.bpf.o").exists()
    (line,) = rust.reasons(project)
    return line


@pytest.mark.usefixtures("tools")
def test_a_crate_becomes_an_object_of_its_name(project: Project) -> None:
    assert rust.build_all(project) == {"rust/counter": project.build / "rust" / "counter.bpf.o"}
    assert (project.build / "rust" / "counter.bpf.o").read_bytes() == an_object()
    assert calls(project) == ["build --quiet --release --target bpfel-unknown-none"]
    assert not list(rust.reasons(project))


@pytest.mark.usefixtures("tools")
def test_nothing_is_written_beside_the_sources(project: Project) -> None:
    """Cargo writes a lock there, and the crate's folder is carried into guests."""
    rust.build_all(project)
    assert not (project.root / "crates" / "counter" / "Cargo.lock").exists()
    assert {path.name for path in (project.build / "rust").iterdir()} == {"counter.bpf.o", "counter.bpf.key"}


def test_only_what_changed_is_compiled_again(project: Project, tools: Path) -> None:
    crate = project.root / "crates" / "counter"
    rust.build_all(project)
    (crate / "target" / "made").write_text("not of its author")
    rust.build_all(project)
    assert len(calls(project)) == 1
    (crate / "src" / "main.rs").write_text("fn main() { }\n")
    rust.build_all(project)
    assert len(calls(project)) == 2
    (crate / "src" / "more.rs").touch()
    rust.build_all(project)
    assert len(calls(project)) == 3
    program(tools / "bpf-linker", "echo bpf-linker 0.14.0\n")
    rust.build_all(project)
    assert len(calls(project)) == 4


@pytest.mark.usefixtures("tools")
def test_the_users_flags_do_not_change_the_object(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUSTFLAGS", "-Copt-level=0")
    monkeypatch.setenv("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
    monkeypatch.setenv("CARGO_BUILD_TARGET_DIR", "/elsewhere")
    rust.build_all(project)
    passed = dict(
        line.split("=", 1) for line in (project.root / "calls.environment").read_text().splitlines() if "=" in line
    )
    assert not passed.keys() & {"RUSTFLAGS", "CARGO_PROFILE_RELEASE_OPT_LEVEL", "CARGO_BUILD_TARGET_DIR"}
    flags = passed["CARGO_ENCODED_RUSTFLAGS"].split("\x1f")
    assert flags[:3] == ["-Ctarget-cpu=v2", "-Cdebuginfo=2", "-Clink-arg=--btf"]
    assert f"-Clinker={project.root / 'tools' / 'bpf-linker'}" in flags
    assert f"--remap-path-prefix={project.root / 'cargo'}=cargo" in flags


@pytest.mark.parametrize("tool", ["cargo", "rustc", "bpf-linker"])
def test_a_missing_tool_is_a_reason_and_no_failure(project: Project, tools: Path, tool: str) -> None:
    rust.build_all(project)
    (tools / tool).unlink()
    assert reason(project) == (
        f"rust/counter: rust objects: {tool} is not installed; kernel-matrix bootstrap --with rust-bpf"
    )


def test_a_reason_goes_when_the_tool_is_there(project: Project, tools: Path) -> None:
    (tools / "cargo").rename(tools / "aside")
    reason(project)
    (tools / "aside").rename(tools / "cargo")
    assert rust.build_all(project)
    assert not list(rust.reasons(project))


def test_a_reason_goes_with_its_crate(project: Project, tools: Path) -> None:
    (tools / "cargo").unlink()
    reason(project)
    assert rust.build_all(replace(project, rust=())) == {}
    assert not list(rust.reasons(project))


def test_a_rustc_without_core_is_a_reason(project: Project, tools: Path) -> None:
    shutil.rmtree(tools / "sysroot")
    assert "no rustc has Rust's core for bpfel-unknown-none, or its source" in reason(project)


def test_core_is_compiled_where_only_its_source_is(project: Project, tools: Path) -> None:
    shutil.rmtree(tools / "sysroot")
    (tools / "sysroot" / "lib" / "rustlib" / "src" / "rust" / "library" / "core").mkdir(parents=True)
    rust.build_all(project)
    assert calls(project) == ["build --quiet --release --target bpfel-unknown-none -Zbuild-std=core"]


def test_the_rustc_with_core_is_chosen(project: Project, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first on PATH may be rustup's, behind which is the distribution's with core."""
    program(project.root / "first" / "rustc", RUSTC)
    monkeypatch.setenv("PATH", f"{project.root / 'first'}{os.pathsep}{tools}")
    assert rust.build_all(project)
    assert f"RUSTC={tools / 'rustc'}\n" in (project.root / "calls.environment").read_text()


@pytest.mark.usefixtures("tools")
def test_another_llvm_is_a_reason(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rust, "_llvm", lambda _: "22")
    monkeypatch.setenv("LLVM", "23.0.1")
    assert "bpf-linker reads code of LLVM 22, no rustc with Rust's core generates it" in reason(project)


def test_the_rustc_of_the_linkers_llvm_is_chosen(
    project: Project, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tools, project.root / "first")
    program(project.root / "first" / "rustc", RUSTC.replace("22.1.8", "19.1.7"))
    monkeypatch.setenv("PATH", f"{project.root / 'first'}{os.pathsep}{tools}")
    monkeypatch.setattr(rust, "_llvm", lambda _: "22")
    assert rust.build_all(project)
    assert f"RUSTC={tools / 'rustc'}\n" in (project.root / "calls.environment").read_text()


def test_the_shared_llvm_of_a_program_is_read() -> None:
    """From what it is linked with; neither an interpreter nor a text has one."""
    assert rust._llvm(Path(sys.executable).resolve()) == ""
    assert rust._llvm(Path(__file__)) == ""
    clang = shutil.which("clang")
    assert clang is not None
    version = re.search(
        r"version (\d+)", subprocess.run([clang, "--version"], capture_output=True, text=True, check=True).stdout
    )
    assert version is not None
    assert rust._llvm(Path(clang).resolve()) in {version[1], ""}


@pytest.mark.usefixtures("tools")
def test_a_kept_lock_is_used_as_it_is(project: Project) -> None:
    (project.root / "crates" / "counter" / "Cargo.lock").touch()
    rust.build_all(project)
    assert calls(project) == ["build --quiet --release --target bpfel-unknown-none --locked"]


def test_what_the_compiler_says_is_the_error(project: Project, tools: Path) -> None:
    rust.build_all(project)
    old = (project.build / "rust" / "counter.bpf.o").read_bytes()
    program(tools / "cargo", "echo 'error: expected item' >&2; exit 101\n")
    (project.root / "crates" / "counter" / "src" / "main.rs").write_text("?")
    with pytest.raises(BuildError, match=r"^counter: cargo failed\nerror: expected item$"):
        rust.build_all(project)
    # the old object stays, and is compiled again the next time
    assert (project.build / "rust" / "counter.bpf.o").read_bytes() == old
    assert not list((project.build / "rust").glob(".compiling-*"))
    with pytest.raises(BuildError):
        rust.build_all(project)


@pytest.mark.usefixtures("tools")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "wrote no object"),
        (an_object(machine=62), "EM_X86_64, without nothing"),
        (an_object(sections=(".maps", "license")), "EM_BPF, without .BTF, .BTF.ext"),
    ],
)
def test_no_object_for_bpf_is_an_error(project: Project, content: bytes, message: str) -> None:
    (project.root / "made.o").write_bytes(content)
    with pytest.raises(BuildError, match=message):
        rust.build_all(project)
    assert not (project.build / "rust" / "counter.bpf.o").exists()


@pytest.mark.parametrize("manifest", [None, "[package", "[package]\n", "package = 1\n"])
def test_a_folder_that_is_no_crate_is_refused(project: Project, manifest: str | None) -> None:
    path = project.root / "crates" / "counter" / "Cargo.toml"
    path.unlink()
    if manifest is not None:
        path.write_text(manifest)
    with pytest.raises(ManifestError, match=r"Cargo\.toml"):
        rust.build_all(project)
