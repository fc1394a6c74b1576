"""Build the loaders that are programs (harness/loaders): once for each content of sources, lock and toolchain.

A loader's folder has a ``loader.toml``, which says with which tool it is built and how. A machine that lacks the tool
lacks the loader: its tests are skipped with that reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from filelock import FileLock

from kernel_matrix.arch import CURRENT
from kernel_matrix.shared import hints, project
from kernel_matrix.shared.errors import BuildError, reraise

#: a link to harness/loaders; in a wheel, a copy
SOURCES = Path(__file__).resolve().parent.parent / "loaders"
_TABLE = "loader.toml"
#: Cargo.lock without the address of the registry, which is the machine's own setting
_CRATES = "Cargo.lock.in"
#: seconds that a new program may take to write its first line
_FIRST_LINE = 60.0


class _Test(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A program with tests of a loader, which is built with it and run in guests. {test} is its name."""

    name: str
    build: tuple[str, ...]
    #: where the build leaves it: a pattern that one executable file fits
    program: str


class _Loader(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """loader.toml. In commands and environment, {scratch} is an empty folder, {rust} and {go} the architecture."""

    #: a program on PATH, and the oldest version of it that serves
    tool: str
    at_least: str
    #: the commands whose output is part of the program's key: all that decides what is compiled
    versions: tuple[tuple[str, ...], ...]
    build: tuple[str, ...]
    #: where the build leaves the program
    program: str
    environment: dict[str, str] = {}
    #: commands that check the sources, each with a program that a machine may lack
    checks: tuple[tuple[str, ...], ...] = ()
    tests: tuple[_Test, ...] = ()


def _path() -> str:
    """Return where tools are looked for: cargo, pip and Go install into folders that may be on no PATH."""
    cargo = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo") / "bin"
    return ":".join([os.environ.get("PATH", ""), str(cargo), str(Path.home() / ".local" / "bin"), "/usr/local/go/bin"])


class Lacking(Exception):
    """A machine lacks what a loader is built with; the text is one line."""


@dataclass(frozen=True, slots=True)
class _Source:
    """A loader's folder."""

    name: str
    folder: Path

    @property
    def table(self) -> _Loader:
        path = self.folder / _TABLE
        try:
            return msgspec.toml.decode(path.read_bytes(), type=_Loader)
        except (msgspec.DecodeError, OSError) as error:
            raise BuildError(f"{self.name}: {path}: {error}") from error

    def files(self) -> Iterator[Path]:
        """Yield the files that decide what is built, sorted."""
        for folder, folders, files in os.walk(self.folder, onerror=reraise):
            folders[:] = sorted(name for name in folders if name != "target" and not name.startswith("."))
            yield from (Path(folder, name) for name in sorted(files) if name != "Cargo.lock")


def is_program(name: str) -> bool:
    """Whether a loader is a program of harness/loaders."""
    return (SOURCES / name / _TABLE).is_file()


def build(name: str, cache: Path) -> dict[str, Path]:
    """Return a loader's program and its tests by their names in a guest, built unless the cache has them.

    Raises Lacking when the machine lacks its tool, BuildError with the tool's messages.
    """
    source = _Source(name, SOURCES / name)
    table = source.table
    _check_tool(name, table)
    folder = cache / "loaders"
    folder.mkdir(parents=True, exist_ok=True)
    key = _key(source, table)
    names = [name, *(project.loader_test_name(name, test.name) for test in table.tests)]
    targets = {program: folder / f"{program}-{key}" for program in names}
    with FileLock(folder / f"{name}.lock"):
        if not all(target.exists() for target in targets.values()):
            # of builds that were killed: whoever has the lock builds alone
            for left in folder.glob(f".{name}-*"):
                shutil.rmtree(left)
            _build(source, table, targets)
    return targets


def _check_tool(name: str, table: _Loader) -> None:
    remedy = hints.command("bootstrap", f"--with {name}")
    if shutil.which(table.tool, path=_path()) is None:
        raise Lacking(f"{name}: {table.tool} is not installed; {remedy}")
    text = _run([table.tool, *(["version"] if table.tool == "go" else ["--version"])], name)
    version = re.search(r"\d+(?:\.\d+)+", text)
    if version is None:
        raise BuildError(f"{name}: {table.tool} names no version: {text.strip()}")
    if _numbers(version[0]) < _numbers(table.at_least):
        raise Lacking(f"{name}: {table.tool} {version[0]} is older than {table.at_least}; {remedy}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _key(source: _Source, table: _Loader) -> str:
    state = hashlib.sha256(CURRENT.name.encode())
    for command in table.versions:
        state.update(_run(command, source.name).encode())
    for path in source.files():
        state.update(f"\0{path.relative_to(source.folder)}\0".encode() + path.read_bytes())
    return state.hexdigest()[:16]


def _build(source: _Source, table: _Loader, targets: Mapping[str, Path]) -> None:
    """Build in a copy of the sources; all get their names when the program has written its first line."""
    with tempfile.TemporaryDirectory(dir=targets[source.name].parent, prefix=f".{source.name}-") as name:
        scratch = Path(name)
        copied = scratch / "source"
        _copy(source, copied)
        values = {"scratch": str(scratch / "build"), "rust": CURRENT.rust, "go": CURRENT.go}
        environment = {key: value.format_map(values) for key, value in table.environment.items()}
        _run([word.format_map(values) for word in table.build], source.name, copied, environment)
        program = Path(table.program.format_map(values))
        if not program.is_file():
            raise BuildError(f"{source.name}: {table.build[0]} left no {program.name}")
        _check_first_line(source.name, program)
        built = {source.name: program}
        for test in table.tests:
            of_test = {**values, "test": test.name}
            _run([word.format_map(of_test) for word in test.build], source.name, copied, environment)
            pattern = Path(test.program.format_map(of_test))
            built[project.loader_test_name(source.name, test.name)] = _only_program(source.name, pattern)
        for program_name, path in built.items():
            path.replace(targets[program_name])


def _only_program(name: str, pattern: Path) -> Path:
    """Return the only executable file of that pattern; cargo adds a digest to a test's name, and other files to it."""
    programs = [path for path in pattern.parent.glob(pattern.name) if path.is_file() and os.access(path, os.X_OK)]
    if len(programs) != 1:
        names = ", ".join(sorted(path.name for path in programs)) or "none"
        raise BuildError(f"{name}: not one program fits {pattern.name}: {names}")
    return programs[0]


def check(folder: Path) -> Iterator[str]:
    """Check copies of all loaders' sources; yield a line for each command. What a machine lacks is left out.

    ``folder`` is kept for the next time. Raises BuildError with the messages of the first command that fails.
    """
    for name in sorted(path.parent.name for path in SOURCES.glob(f"*/{_TABLE}")):
        source = _Source(name, SOURCES / name)
        copied, scratch = folder / name / "source", folder / name / "build"
        if copied.exists():
            shutil.rmtree(copied)
        _copy(source, copied)
        for command in source.table.checks:
            if shutil.which(command[0], path=_path()) is None:
                yield f"{name}: left out: {command[0]} is not installed"
                continue
            _run([word.format_map({"scratch": str(scratch)}) for word in command], name, copied)
            yield f"{name}: {' '.join(command)}"


def _copy(source: _Source, folder: Path) -> None:
    for path in source.files():
        copy = folder / path.relative_to(source.folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    if (folder / _CRATES).is_file():
        _lock_crates(source.name, folder)


def _lock_crates(name: str, folder: Path) -> None:
    """Write Cargo.lock from its committed form: cargo itself names the registry that the machine uses."""
    _run(["cargo", "generate-lockfile"], name, folder)
    lock = folder / "Cargo.lock"
    sources = {package["source"] for package in tomllib.loads(lock.read_text())["package"] if "source" in package}
    if len(sources) != 1:
        raise BuildError(f"{name}: crates from {len(sources)} registries: {', '.join(sorted(sources))}")
    line = f'source = "{sources.pop()}"\n'
    lock.write_text(re.sub(r"^checksum = ", f"{line}checksum = ", (folder / _CRATES).read_text(), flags=re.MULTILINE))


def _check_first_line(name: str, program: Path) -> None:
    try:
        done = subprocess.run([str(program)], input=b"", capture_output=True, timeout=_FIRST_LINE, check=False)
        greeting = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{name}: the new program does not write its first line: {error}") from error
    if not isinstance(greeting, dict) or greeting.get("loader") != name or done.returncode:
        raise BuildError(f"{name}: the new program is none of that loader: {done.stdout[:200]!r}")


def _run(
    command: list[str] | tuple[str, ...], name: str, folder: Path | None = None, more: Mapping[str, str] | None = None
) -> str:
    environment = {**os.environ, "PATH": _path(), **(more or {})}
    program = shutil.which(command[0], path=_path()) or command[0]
    try:
        done = subprocess.run(
            [program, *command[1:]], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise BuildError(f"{name}: {command[0]}: {error.strerror}") from error
    if done.returncode:
        raise BuildError(f"{name}: {' '.join(command[:2])} failed\n{done.stderr.rstrip()}")
    return done.stdout
