"""What guests compile before the tests' own guests: what is chosen, kept and noted, and that it always ends."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from kernel_matrix.plan import selection
from kernel_matrix.plan.bpf import compiling
from kernel_matrix.plan.bpf.compiling import Compiling
from kernel_matrix.shared import wire
from kernel_matrix.shared.bpf import compiled
from kernel_matrix.vm.ending import End, Ending
from tests.projects import below
from tests.test_compiled import COMPILER, VALUE

#: a relay: it answers the bootstrap line, prints what the file beside it holds, and ends, or waits for its end
RELAY = """
import pathlib, sys
line = sys.stdin.buffer.readline()
assert b"compile_ahead" in line, line
sys.stdout.write("1")
sys.stdout.flush()
pathlib.Path(sys.argv[1]).with_suffix(".started").write_bytes(line)
sys.stdout.write(pathlib.Path(sys.argv[1]).read_text())
sys.stdout.flush()
if "waits" in sys.argv:
    sys.stdin.buffer.read()
    pathlib.Path(sys.argv[1]).with_suffix(".ended").touch()
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERNEL_MATRIX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "compiled" / COMPILER


def guest(folder: Path, kernel: str, output: str, *words: str, objects: tuple[str, ...] = ("a",)) -> Compiling:
    printed = folder / f"{kernel}.out"
    printed.write_text(output)
    relay = [sys.executable, "-c", RELAY, str(printed), *words]
    return Compiling(kernel, relay, folder / f"{kernel}.ending.json", objects)


def text(key: str, name: str = "a.bpf.o") -> str:
    return compiled.as_text(replace(VALUE, key=key, name=name))


def test_what_guests_compile_is_kept_and_noted(tmp_path: Path, cache: Path) -> None:
    """Empty lines are signs of life."""
    lines: list[str] = []
    guests = (
        guest(tmp_path, "6.1", f"\n\n{text('a' * 16)}\n\n{text('b' * 16, 'deep/b.bpf.o')}\n", objects=("a", "deep/b")),
        guest(tmp_path, "5.10", f"{text('c' * 16)}\n"),
    )
    notes = compiling.ahead(guests, tmp_path, lines.append)
    assert lines[0] == "compiling for bcc on 6.1, 5.10: a, deep/b"
    assert sorted(notes) == [
        "5.10: bcc compiled a.bpf.o in 150.5 s, and later guests get it",
        "6.1: bcc compiled a.bpf.o in 150.5 s, and later guests get it",
        "6.1: bcc compiled deep/b.bpf.o in 150.5 s, and later guests get it",
    ]
    assert lines[1:] == list(notes)
    assert {path.name for path in cache.iterdir() if not path.name.startswith(".")} == {"a" * 16, "b" * 16, "c" * 16}
    assert "['a', 'deep/b']" in ast.literal_eval((tmp_path / "6.1.started").read_text())


def test_what_the_compiler_refuses_has_its_reason(tmp_path: Path, cache: Path) -> None:
    """The guest has done its work: how it ended says nothing."""
    refused = compiled.Refused("a", "a.bpf.c:3: error: no member").as_text()
    one = guest(tmp_path, "6.1", f"{refused}\n{text('b' * 16, 'b.bpf.o')}\n", objects=("a", "b"))
    assert compiling.ahead((one,), tmp_path, lambda _: None) == (
        "6.1: bcc does not compile a, and tests that load it with bcc fail: a.bpf.c:3: error: no member",
        "6.1: bcc compiled b.bpf.o in 150.5 s, and later guests get it",
    )
    assert {path.name for path in cache.iterdir() if not path.name.startswith(".")} == {"b" * 16}


@pytest.mark.parametrize("line", ["{", "{}", '{"object": 1, "reason": ""}', '{"object": "a"}', '{"a": 1}'])
def test_a_damaged_refusal_is_noted(tmp_path: Path, line: str) -> None:
    notes = compiling.ahead((guest(tmp_path, "6.1", f"{line}\n"),), tmp_path, lambda _: None)
    assert notes[0].startswith("6.1: what a loader did not compile is not known: ")
    assert notes[1].startswith("6.1: not compiled ahead")


@pytest.mark.parametrize("output", ["", "\n", "damaged\n", "x" * 200_000, text("a" * 16)[:-8]])
def test_what_does_not_come_is_noted_and_nothing_is_kept(tmp_path: Path, cache: Path, output: str) -> None:
    one = guest(tmp_path, "6.1", output)
    wire.write(one.ending_path, Ending("6.1", End.PANIC, "the kernel panicked: oops", release="6.1.0"))
    notes = compiling.ahead((one,), tmp_path, lambda _: None)
    failed = "kernel 6.1 (6.1.0): the kernel panicked: oops"
    assert notes[-1] == f"6.1: not compiled ahead, so each guest that needs it compiles: a ({failed})"
    assert not cache.exists()


def test_a_relay_that_was_killed_is_noted(tmp_path: Path) -> None:
    (note,) = compiling.ahead((guest(tmp_path, "6.1", ""),), tmp_path, lambda _: None)
    assert note.endswith("(its relay was killed)")


def test_an_interruption_ends_every_guest(tmp_path: Path) -> None:
    """The end of its standard input ends a relay."""
    guests = (guest(tmp_path, "6.1", f"{text('a' * 16)}\n", "waits"), guest(tmp_path, "5.10", "", "waits"))

    def interrupted(line: str) -> None:
        if "later guests" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compiling.ahead(guests, tmp_path, interrupted)
    assert (tmp_path / "6.1.ended").exists()
    assert (tmp_path / "5.10.ended").exists()


def test_without_guests_nothing_is_printed(tmp_path: Path) -> None:
    assert compiling.ahead((), tmp_path, pytest.fail) == ()


def test_only_what_tests_with_the_loader_name_is_compiled(tmp_path: Path) -> None:
    """Names in quotes: in the file, or in a conftest above it."""
    files = {
        "suites/one/conftest.py": "def counter(loader: Loader): path = object_path('x', \"counter\")\n",
        "suites/one/test_a.py": 'A = "other"\n',
        "suites/two/test_b.py": 'def test_b(loader): object_path("deep/b"), steps.loaded(steps.object_path("own"))\n',
        "suites/two/test_c.py": 'def test_c(): object_path("unused")\n',
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    project = below(tmp_path, tests=("suites",))
    every = ["counter", "other", "deep/b", "unused", "own", "b", "deep"]
    assert selection.loaded_objects(project, (), every) == {"counter", "other", "deep/b"}
    assert selection.loaded_objects(project, ("suites/two",), every) == {"deep/b"}
    assert selection.loaded_objects(project, ("suites/two/test_c.py",), every) == frozenset()


def test_the_guest_writes_results_and_nothing_else(tmp_path: Path) -> None:
    """What a compiler prints leaves no trace between the lines."""
    program = textwrap.dedent("""
        import os, sys
        from dataclasses import replace
        from kernel_matrix.guest.bpf.loader_support import compile_ahead
        from kernel_matrix.guest.bpf.step_error import StepError
        from kernel_matrix.guest.system.upkeep.alive import working
        from tests.test_compiled import VALUE

        def compiled_anew(path):
            os.write(1, b"compiler\\n")
            print("python", flush=True)
            if path.name == "bad.bpf.o":
                raise StepError(0, "open", "bad: no", "note: x\\n  c:1: error: y\\n  c:2: error: z\\n")
            return replace(VALUE, name=path.name)

        compile_ahead.bcc.compiled_anew = compiled_anew
        compile_ahead.main(["a", "bad", "b"])
    """)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    first, refused, last = done.stdout.splitlines()
    assert [compiled.decode(compiled.of_text(line)).name for line in (first, last)] == ["a.bpf.o", "b.bpf.o"]
    assert compiled.Refused.of_text(refused) == compiled.Refused("bad", "c:1: error: y")
    assert "not compiled: " in done.stderr
    assert done.stderr.count("compiler\n") == 3
