"""A project of others, from `init` to a regression that is caught: tests/foreign_projects, in guests of one kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from kernel_matrix.objects import loader_programs
from kernel_matrix.results import document
from kernel_matrix.results.document import Document

PROJECTS = Path(__file__).resolve().parent / "foreign_projects"
KERNEL = "6.1"
#: a project's own run, not that of the session that tests it
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("KERNEL_MATRIX_ROOT", "PYTEST"))}
#: the same program in each project
SOURCE = "bpf/calls.bpf.c"
ACTS = ("attach", "capabilities", "cost", "load")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of project, and a mistake that somebody makes in it."""

    folder: str
    #: programs that it is built with
    tools: tuple[str, ...]
    #: builds it the first time, before `init`
    build: str
    #: the lines that `init` writes
    written: tuple[str, ...]
    #: the line by which the user names the whole build, and the loader
    own_build: str
    command: str
    #: a piece of the program, and what it becomes
    mistake: tuple[str, str]
    #: the cells that are red then, without the object's name, and a line of the run's output
    red: frozenset[str]
    line: str
    #: the engine's loader that is built with the same toolchain; empty: none is
    loader: str = ""


SKELETON = Kind(
    "skeleton",
    ("make", "cc", "clang", "bpftool"),
    "make",
    ('build = "make"', 'objects = ["build/*.bpf.o"]'),
    "make",
    "bin/calls --self-test",
    # the verifier refuses it: the value may be NULL
    ("!value || ", ""),
    frozenset({"count::attach", "count::capabilities", "count::cost", "count::load", "command[bin/calls --self-test]"}),
    "calls.bpf.o::count: refused at load: EACCES: refused by the verifier: R",
)
BPF2GO = Kind(
    "bpf2go",
    ("clang",),
    "go generate ./...",
    ('build = "go generate ./..."', 'objects = ["*_bpfel.o"]'),
    "go generate ./... && go build -o bin/calls .",
    "bin/calls --self-test",
    # every step of the engine is green: only what the project's own loader counts is wrong
    ("__sync_fetch_and_add(value, 1)", "__sync_fetch_and_add(value, 2)"),
    frozenset({"command[bin/calls --self-test]"}),
    "kernel-matrix.toml::command[bin/calls --self-test]: exit status 1",
    loader="cilium",
)
AYA = Kind(
    "aya",
    ("clang",),
    "cargo build --release",
    ('build = "cargo build --release"', 'objects = ["target/release/build/calls-*/out/*.bpf.o"]'),
    "cargo build --release",
    "target/release/calls --self-test",
    # nothing is red, and the verifier goes through it a hundred times
    ("\t__sync_fetch_and_add", "\tfor (volatile int i = 0; i < 100; i++)\n\t\t;\n\t__sync_fetch_and_add"),
    frozenset(),
    "cost grew: 6.1 ",
    loader="aya",
)


def lacking(kind: Kind) -> str:
    """Return what this machine lacks to build it, in the manifest's words; empty: nothing."""
    try:
        if kind.loader:
            source = loader_programs._Source(kind.loader, loader_programs.SOURCES / kind.loader)
            loader_programs._check_tool(kind.loader, source.table)
    except loader_programs.Lacking as error:
        return str(error)
    missing = [tool for tool in kind.tools if shutil.which(tool) is None]
    return f"{missing[0]} is not installed" if missing else ""


def check(kind: Kind, folder: Path) -> None:
    """Go the way of a new user: build, init, run, baseline, a mistake, which is red, and its repair."""
    if why := lacking(kind):
        pytest.skip(why)
    shutil.copytree(PROJECTS / kind.folder, folder, dirs_exist_ok=True)
    (folder / SOURCE).parent.mkdir()
    shutil.copy(PROJECTS / Path(SOURCE).name, folder / SOURCE)
    _done(["sh", "-c", kind.build], folder)
    _engine(folder, "init")
    table = folder / "kernel-matrix.toml"
    text = table.read_text()
    for line in kind.written:
        assert line in text.splitlines()
    own = f'build = "{kind.own_build}"\ncommands = ["{kind.command}"]\nkernels = ["{KERNEL}"]'
    table.write_text(text.replace(kind.written[0], own))

    _engine(folder, "run", "-q")
    good = document.read(folder / "results" / "latest")
    assert {(cell.kernel, str(cell.outcome)) for cell in good.cells} == {(KERNEL, "pass")}
    assert _names(good) == {
        *(f"count::{act}" for act in ACTS),
        f"command[{kind.command}]",
        "test_the_kernel_shows_its_types",
    }
    _engine(folder, "baseline", "--update", "--results", "results/latest")

    source = folder / SOURCE
    right = source.read_text()
    assert right.count(kind.mistake[0]) == 1
    source.write_text(right.replace(*kind.mistake))
    output = _engine(folder, "run", "-q", status=1)
    assert kind.line in output
    bad = document.read(folder / "results" / "latest")
    assert {cell.test.partition("::")[2] for cell in bad.cells if not cell.outcome.green} == kind.red
    assert any(change.gates for change in bad.changes)


def _names(of: Document) -> set[str]:
    return {cell.test.partition("::")[2] for cell in of.cells}


def _engine(folder: Path, *words: str, status: int = 0) -> str:
    return _done([sys.executable, "-m", "kernel_matrix", *words], folder, status)


def _done(command: list[str], folder: Path, status: int = 0) -> str:
    done = subprocess.run(command, cwd=folder, env=CLEAN, capture_output=True, text=True, check=False)
    assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr
