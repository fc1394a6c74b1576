"""Building the loaders' programs: once for each content, never half, and one line about what is lacking."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from kernel_matrix.arch import CURRENT
from kernel_matrix.objects import loader_programs
from kernel_matrix.shared.errors import BuildError

_TABLE = """
tool = "maker"
at-least = "1.9"
versions = [["maker", "--version"], ["maker", "--llvm"]]
build = ["maker", "build", "{scratch}", "{rust}", "{go}"]
program = "{scratch}/out"
environment = { MAKER_FLAGS = "for {rust}" }
"""
#: a loader with a program of tests, to whose name the tool adds a digest, as cargo does
_WITH_TESTS = (
    _TABLE
    + """
[[tests]]
name = "test_kernel"
build = ["maker", "build-test", "{scratch}", "{test}"]
program = "{scratch}/deps/{test}-*"
"""
)
#: a tool that notes its calls, and makes a program that says its first line
_MAKER = """#!{python}
import os, pathlib, sys
if sys.argv[1] == "build-test":
    deps = pathlib.Path(sys.argv[2], "deps")
    deps.mkdir()
    (deps / (sys.argv[3] + "-1a2b.d")).write_text("")
    for digest in os.environ.get("DIGESTS", "1a2b").split():
        test = deps / (sys.argv[3] + "-" + digest)
        test.write_text("#!/bin/sh")
        test.chmod(0o755)
    sys.exit()
if sys.argv[1] != "build":
    print("maker " + os.environ.get("VERSION", "1.10.2"))
    sys.exit()
with open({log!r}, "a") as log:
    print(os.environ["MAKER_FLAGS"], *sorted(os.listdir(".")), *sys.argv[3:], file=log)
if os.environ.get("FAIL"):
    sys.exit("maker: error: no such crate")
out = pathlib.Path(sys.argv[2], "out")
out.parent.mkdir()
if os.environ.get("NOTHING"):
    sys.exit()
out.write_text("#!{python}\\n" + os.environ.get("PROGRAM", 'print(\\'{{"protocol": 1, "loader": "fake"}}\\')'))
out.chmod(0o755)
"""


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set up a loader ``fake`` and its tool; return the file in which the tool notes its builds."""
    log = tmp_path / "builds"
    log.write_text("")
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "maker").write_text(_MAKER.format(python=sys.executable, log=str(log)))
    (binaries / "maker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
    source = tmp_path / "loaders" / "fake"
    (source / "src").mkdir(parents=True)
    (source / "loader.toml").write_text(_TABLE)
    (source / "src" / "main.x").write_text("code")
    (source / "target").mkdir()
    (source / "target" / "left-over").write_text("of a build by hand")
    monkeypatch.setattr(loader_programs, "SOURCES", tmp_path / "loaders")
    return log


def _build(tmp_path: Path) -> Path:
    return loader_programs.build("fake", tmp_path / "cache")["fake"]


def test_a_program_is_built_once_in_a_copy_of_its_sources(tool: Path, tmp_path: Path) -> None:
    program = _build(tmp_path)
    assert os.access(program, os.X_OK)
    assert _build(tmp_path) == program
    rust, go = CURRENT.rust, CURRENT.go
    assert tool.read_text() == f"for {rust} loader.toml src {rust} {go}\n"
    assert sorted(path.name for path in program.parent.iterdir()) == [program.name, "fake.lock"]


@pytest.mark.parametrize("changed", ["source", "new file", "toolchain", "table"])
def test_what_decides_the_program_is_in_its_name(
    changed: str, tool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _build(tmp_path)
    source = tmp_path / "loaders" / "fake"
    match changed:
        case "source":
            (source / "src" / "main.x").write_text("other code")
        case "new file":
            (source / "src" / "more.x").write_text("")
        case "toolchain":
            monkeypatch.setenv("VERSION", "1.11")
        case "table":
            (source / "loader.toml").write_text(_TABLE + "# another\n")
    assert _build(tmp_path) != first
    assert len(tool.read_text().splitlines()) == 2


def test_a_lacking_tool_is_one_line_with_its_remedy(
    tool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("KERNEL_MATRIX_NOX", raising=False)
    with pytest.raises(loader_programs.Lacking) as caught:
        _build(tmp_path)
    assert str(caught.value) == "fake: maker is not installed; kernel-matrix bootstrap --with fake"
    assert tool.read_text() == ""


@pytest.mark.parametrize(("version", "old"), [("1.8.99", True), ("1.9", False), ("1.9.0", False), ("2.0", False)])
def test_an_old_tool_is_as_none(
    version: str, old: bool, tool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VERSION", version)
    if not old:
        _build(tmp_path)
        return
    with pytest.raises(loader_programs.Lacking, match=r"^fake: maker 1\.8\.99 is older than 1\.9; "):
        _build(tmp_path)


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("FAIL", "1", r"^fake: maker build failed\nmaker: error: no such crate$"),
        ("NOTHING", "1", "^fake: maker left no out$"),
        ("PROGRAM", "print('hello')", "^fake: the new program does not write its first line: "),
        ("PROGRAM", 'print(\'{"protocol": 1, "loader": "other"}\')', "^fake: the new program is none of that loader"),
        ("PROGRAM", "import sys; sys.exit(1)", "^fake: the new program does not write its first line: "),
    ],
)
def test_a_failed_build_leaves_nothing(
    variable: str, value: str, why: str, tool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(BuildError, match=why):
        _build(tmp_path)
    assert [path.name for path in (tmp_path / "cache" / "loaders").iterdir()] == ["fake.lock"]
    # as a killed build leaves it
    (tmp_path / "cache" / "loaders" / ".fake-x" / "source").mkdir(parents=True)
    monkeypatch.delenv(variable)
    program = _build(tmp_path)
    assert sorted(path.name for path in program.parent.iterdir()) == [program.name, "fake.lock"]


def test_programs_with_tests_are_built_with_the_loader(tool: Path, tmp_path: Path) -> None:
    """Each has a name of its own in a guest; whichever is gone from the cache, all are built again."""
    (tmp_path / "loaders" / "fake" / "loader.toml").write_text(_WITH_TESTS)
    programs = loader_programs.build("fake", tmp_path / "cache")
    assert list(programs) == ["fake", "fake.test_kernel"]
    assert programs["fake.test_kernel"].read_text() == "#!/bin/sh"
    assert os.access(programs["fake.test_kernel"], os.X_OK)
    assert len(tool.read_text().splitlines()) == 1
    for path in programs.values():
        loader_programs.build("fake", tmp_path / "cache")
        path.unlink()
        assert loader_programs.build("fake", tmp_path / "cache") == programs
    assert len(tool.read_text().splitlines()) == 3


@pytest.mark.parametrize(("digests", "names"), [(" ", "none"), ("1a 2b", "test_kernel-1a, test_kernel-2b")])
def test_a_pattern_names_one_program(
    digests: str, names: str, tool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of two is meant is unknown; neither they nor the loader's program are kept."""
    (tmp_path / "loaders" / "fake" / "loader.toml").write_text(_WITH_TESTS)
    monkeypatch.setenv("DIGESTS", digests)
    with pytest.raises(BuildError, match=rf"^fake: not one program fits test_kernel-\*: {names}$"):
        _build(tmp_path)
    assert [path.name for path in (tmp_path / "cache" / "loaders").iterdir()] == ["fake.lock"]


def test_sources_are_checked_in_a_copy(tool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the machine has; the first command that fails ends it with its messages."""
    source = tmp_path / "loaders" / "fake"
    (source / "loader.toml").write_text(
        _TABLE + 'checks = [["no-such-tool"], ["maker", "build", "{scratch}", "x", "y"]]'
    )
    for path in (tmp_path / "checks" / "fake" / "source" / "gone", tmp_path / "checks" / "fake" / "build" / "kept"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.setenv("MAKER_FLAGS", "checked")
    monkeypatch.setenv("FAIL", "1")
    lines = loader_programs.check(tmp_path / "checks")
    assert next(lines) == "fake: left out: no-such-tool is not installed"
    with pytest.raises(BuildError, match=r"^fake: maker build failed\nmaker: error: no such crate$"):
        next(lines)
    # without what the source does not have any more, and without what a build by hand has left
    assert tool.read_text() == "checked loader.toml src x y\n"
    assert (tmp_path / "checks" / "fake" / "build" / "kept").exists()


@pytest.mark.parametrize("table", ["tool = 5\n", "", "tool = 'maker'\nnonsense = 1\n", "]"])
def test_a_wrong_table_is_one_line(table: str, tool: Path, tmp_path: Path) -> None:
    path = tmp_path / "loaders" / "fake" / "loader.toml"
    path.write_text(table)
    with pytest.raises(BuildError, match=r"loader\.toml: ") as caught:
        _build(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_crates_of_a_lock_get_the_registry_that_cargo_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The committed lock has versions and checksums, and no address."""
    (tmp_path / "Cargo.lock.in").write_text(
        'version = 4\n\n[[package]]\nname = "own"\nversion = "0.1.0"\n\n'
        '[[package]]\nname = "a"\nversion = "1.0.0"\nchecksum = "aa"\n'
    )

    def generate(*_: object) -> str:
        (tmp_path / "Cargo.lock").write_text(
            '[[package]]\nname = "own"\n\n[[package]]\nname = "a"\nversion = "1.2.0"\nsource = "registry+x"\n'
        )
        return ""

    monkeypatch.setattr(loader_programs, "_run", generate)
    loader_programs._lock_crates("fake", tmp_path)
    assert (tmp_path / "Cargo.lock").read_text() == (
        'version = 4\n\n[[package]]\nname = "own"\nversion = "0.1.0"\n\n'
        '[[package]]\nname = "a"\nversion = "1.0.0"\nsource = "registry+x"\nchecksum = "aa"\n'
    )
