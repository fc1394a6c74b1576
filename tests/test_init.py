"""The command ``init``: what it sees, and that the engine reads what it writes."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from kernel_matrix.commands import init
from kernel_matrix.config import project as projects
from kernel_matrix.shared.errors import ManifestError
from tests import core_source
from tests.projects import ROOT
from tests.test_proposals import SOURCE

#: the first bytes of an ELF file of BPF, and of one of another machine
OBJECT = b"\x7fELF\x02\x01" + bytes(12) + (247).to_bytes(2, "little")
OTHER = b"\x7fELF\x02\x01" + bytes(12) + (62).to_bytes(2, "little")
#: and of BPF for the other byte order
BIG = b"\x7fELF\x02\x02" + bytes(12) + (247).to_bytes(2, "big")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "build/a.bpf.o": OBJECT,
        "build/b.bpf.o": OBJECT,
        "target/bpfel/c.o": OBJECT,
        "main.o": OTHER,
        ".cache/d.bpf.o": OBJECT,
        "node_modules/e.bpf.o": OBJECT,
        "go.mod": b"module x\n",
        "Makefile": b"all:\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_objects_of_bpf_are_seen_and_what_makes_them(folder: Path) -> None:
    """Not those of another machine, of hidden folders, and of other projects."""
    assert init.look(folder) == init.Seen(
        ("build/a.bpf.o", "build/b.bpf.o", "target/bpfel/c.o"), ("make", "go generate ./...")
    )


def test_the_engine_reads_the_table_that_is_written(folder: Path) -> None:
    assert list(init.run(folder)) == [
        "kernel-matrix.toml: written",
        "tests/kernel/test_objects.py: written",
        ".github/workflows/kernel-matrix.yml: written",
    ]
    read = projects.load(folder)
    assert read is not None
    assert read.objects == ("build/*.bpf.o", "target/bpfel/*.o")
    assert read.object_files == ("build/a.bpf.o", "build/b.bpf.o", "target/bpfel/c.o")
    assert read.tests == ("tests/kernel",)
    # a run builds
    assert read.make == "make"
    assert "run: kernel-matrix run\n" in (folder / ".github/workflows/kernel-matrix.yml").read_text()


def test_what_is_not_built_here_is_a_comment(tmp_path: Path) -> None:
    """A project whose objects come from elsewhere."""
    list(init.run(tmp_path))
    read = projects.load(tmp_path)
    assert read is not None
    assert read.make == ""
    assert '# build = "make"' in (tmp_path / "kernel-matrix.toml").read_text()


@pytest.mark.parametrize(
    ("objects", "others", "named"),
    [
        (["out/x.bpf.o", "out/y.bpf.o"], ["out/main.o"], ["out/*.bpf.o"]),
        (["out/x.o", "out/y.o"], [], ["out/*.o"]),
        # a pattern would take what is no object of BPF code
        (["out/x.o", "out/y.o"], ["out/main.o"], ["out/x.o", "out/y.o"]),
        # bpf2go makes one for each byte order
        (["a/x_bpfel.o", "a/y_bpfel.o"], ["a/x_bpfeb.o"], ["a/*_bpfel.o"]),
        # and, on request, one for each architecture
        (["b/y_x86_bpfel.o"], ["b/y_arm64_bpfel.o"], ["b/y_x86_bpfel.o"]),
        # aya-build's
        (
            ["target/release/build/tool-0123456789abcdef/out/prog"],
            ["target/release/build/tool-0123456789abcdef/out/log"],
            ["target/release/build/tool-*/out/prog"],
        ),
        (["target/bpfel-unknown-none/release/prog"], [], ["target/bpfel-unknown-none/release/prog"]),
    ],
)
def test_patterns_match_objects_alone(tmp_path: Path, objects: list[str], others: list[str], named: list[str]) -> None:
    for name in (*objects, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(
            OBJECT if name in objects or "arm64" in name else BIG if "bpfeb" in name else OTHER
        )
    assert init.patterns(tmp_path, init.look(tmp_path).objects) == named


def test_every_comment_of_the_table_is_a_valid_line(folder: Path) -> None:
    """A user takes the sign of the comment away."""
    commented = [line[2:] for line in init.table(folder, init.look(folder)).splitlines() if line.startswith("# ")]
    settings = "\n".join(line for line in commented if "=" in line or line.startswith("["))
    (folder / "requirements-guest.txt").touch()
    tomllib.loads(settings)
    (folder / "kernel-matrix.toml").write_text(settings)
    read = projects.load(folder)
    assert read is not None
    assert read.object_table.expected
    assert read.object_table.capabilities
    assert read.object_table.scenarios


def test_what_an_object_lacks_is_in_the_table(tmp_path: Path) -> None:
    """Behind a comment's sign: the values are its loader's."""
    (tmp_path / "build").mkdir()
    core_source.compiled(tmp_path / "build", "x.bpf", SOURCE)
    text = init.table(tmp_path, init.look(tmp_path))
    lines = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]
    start = lines.index('[object."x.bpf.o"]')
    assert lines[start + 3 : start + 5] == [
        "max-entries.neither = 1024  # as its loader does",
        "max-entries.tasks = 1024  # as its loader does",
    ]
    settings = "\n".join(line for line in lines if "=" in line or line.startswith("["))
    assert tomllib.loads(settings)["object"]["x.bpf.o"]["sections"]["flows"] == "SECTION"


def test_the_comments_of_the_example_are_a_test_that_types(folder: Path) -> None:
    """A user takes the signs away, and names an object."""
    commented = [line.removeprefix("# ") for line in init.EXAMPLE.splitlines()]
    (folder / "test_example.py").write_text("\n".join(commented) + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "test_example.py"],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(ROOT / "harness")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_table_and_files_that_are_there_stay(folder: Path) -> None:
    (folder / "tests" / "kernel").mkdir(parents=True)
    (folder / "tests" / "kernel" / "test_objects.py").write_text("mine")
    assert "tests/kernel/test_objects.py: is there already, and stays as it is" in list(init.run(folder))
    assert (folder / "tests" / "kernel" / "test_objects.py").read_text() == "mine"
    with pytest.raises(ManifestError, match="has a table already"):
        list(init.run(folder))


def test_without_objects_it_says_so(tmp_path: Path) -> None:
    assert list(init.run(tmp_path))[-1].startswith("no compiled object was seen")
    assert projects.load(tmp_path) is not None


def test_the_command_writes_into_this_folder(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kernel_matrix", "init"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "kernel-matrix.toml").is_file()
