"""The variants of kernel command lines that the selected tests ask for, decided before any guest boots.

A test asks with ``@boots_with("name")``. The files are searched for that word first. Only if a file has it and the
command line narrows the selection (-k, -m, node ids, --lf), a pytest in another process collects the selected tests
for all guests, and writes which guests have a test.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from kernel_matrix.relay.payload import TEST_FILES
from kernel_matrix.shared.errors import HarnessError, ManifestError
from kernel_matrix.shared.project import Project

_MARK = "boots_with"
#: a parameter with the name of the fixture
_LOADER = re.compile(r"\bloader\b\s*[:,)]")
#: the engine's own way of loading an object
_IN_PROCESS = re.compile(r"\bsteps\.loaded\(\s*(?:steps\.)?object_path\([^()]*\)")
#: for the collecting pytest: the guests' names, the file for those that have a test, the table's loaders and commands
NAMES, SELECTED, LOADERS = "HARNESS_GUEST_NAMES", "HARNESS_GUESTS_FOUND", "HARNESS_LOADERS"
COMMANDS = "HARNESS_COMMANDS"
#: and what the table says of objects
OBJECTS = "HARNESS_OBJECT_TABLE"


@dataclass(frozen=True, slots=True)
class Selection:
    """The words of pytest's command line that select tests."""

    #: paths and node ids, relative to the project
    arguments: tuple[str, ...] = ()
    #: options that narrow them, such as ``-k``, ``vlan``
    options: tuple[str, ...] = ()

    @property
    def narrowed(self) -> bool:
        """Whether the selection may have parts of files."""
        return bool(self.options) or any("::" in argument for argument in self.arguments)


def variants_by_file(root: Path, selection: Selection) -> dict[str, frozenset[str]]:
    """Return the selected files in which a test asks for a variant -> the variants."""
    files = {}
    for path in _files(root, selection.arguments):
        names = frozenset(_names(path))
        if names:
            files[str(path.relative_to(root))] = names
    return files


def check(project: Project, files: Mapping[str, frozenset[str]], variants: Sequence[str]) -> None:
    """Refuse a name that is not in variants.toml, and a variant that no suite asks for; raises ManifestError.

    A project without suites, such as `gate` makes of objects, asks for none.
    """
    for file, names in files.items():
        for name in sorted(names - set(variants)):
            raise ManifestError(
                f"{file}: unknown variant {name!r} (variants.toml has: {', '.join(variants) or 'none'})"
            )
    if not (project.own_images and project.tests):
        return
    used = frozenset[str]().union(*variants_by_file(project.root, Selection(project.tests)).values())
    for name in variants:
        if name not in used:
            raise ManifestError(f"variants.toml: {name}: no test asks for it (@{_MARK})")


def guests(project: Project, selection: Selection, names: Mapping[str, str]) -> frozenset[str]:
    """Return the guests that have a selected test; ``names`` are the possible guests (name -> variant)."""
    variants = frozenset[str]().union(*variants_by_file(project.root, selection).values())
    possible = frozenset(name for name, variant in names.items() if variant in variants)
    if not possible or not selection.narrowed:
        return possible
    _, selected, output = _collect(project, selection, sorted(possible))
    if selected is None:
        raise HarnessError(f"the selected tests could not be collected:\n{output}")
    return frozenset(selected)


def collects(project: Project, nodeid: str, guest: str) -> bool:
    """Whether that guest has a test of that node id; raises HarnessError when the file cannot be collected."""
    status = _collect(project, Selection((nodeid,)), [guest])[0]
    if status == pytest.ExitCode.OK:
        return True
    # for a node id in a file that cannot be collected, pytest only says that the test was not found
    status, _, output = _collect(project, Selection((nodeid.partition("::")[0],)), [guest])
    if status not in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        raise HarnessError(f"{nodeid} could not be collected:\n{output}")
    return False


def _collect(project: Project, selection: Selection, names: Sequence[str]) -> tuple[int, list[str] | None, str]:
    """Collect as guests of those names do.

    Return pytest's exit status, the guests that have a test for their variant (None: collection failed), its output.
    """
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        guests_file = Path(folder, "guests.json")
        environment = {
            **os.environ,
            NAMES: json.dumps(names),
            SELECTED: str(guests_file),
            LOADERS: json.dumps(project.all_loaders),
            COMMANDS: json.dumps([asdict(command) for command in project.commands]),
            OBJECTS: json.dumps(asdict(project.object_table)),
        }
        command = [sys.executable, "-m", "pytest", *project.pytest_options, "-p", "kernel_matrix.plan.collecting"]
        command.append("--collect-only")
        command += ["-q", "-p", "no:cacheprovider"] if "--lf" not in selection.options else ["-q"]
        done = subprocess.run(
            [*command, *selection.options, *selection.arguments],
            cwd=project.root, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        output = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.returncode, (json.loads(guests_file.read_text()) if guests_file.exists() else None), output


def test_files(root: Path, argument: str) -> list[str]:
    """Return the test files of a path or node id of the command line, relative to the project, sorted."""
    path = root / argument.partition("::")[0]
    files = {path} if path.is_file() else {file for pattern in TEST_FILES for file in path.rglob(pattern)}
    return sorted(str(file.relative_to(root)) for file in files)


def loads(project: Project, arguments: Sequence[str]) -> bool:
    """Whether a selected test file, or a conftest above it, names the fixture of the loader.

    It may name it without using it; a fixture of a plugin that uses it is not noticed.
    """
    return any(_LOADER.search(text) for text in _texts(project, arguments))


def loaded_objects(project: Project, arguments: Sequence[str], objects: Iterable[str]) -> frozenset[str]:
    """Return which of these objects the test files that name the fixture of the loader name, too.

    Not those that such a file loads with libbpf whatever the loader is.
    """
    texts = [_IN_PROCESS.sub("", text) for text in _texts(project, arguments) if _LOADER.search(text)]
    return frozenset(name for name in objects if any(f'"{name}"' in text for text in texts))


def _texts(project: Project, arguments: Sequence[str]) -> Iterator[str]:
    """Yield the text of each selected test file, together with those of the conftests above it."""
    for argument in arguments or project.tests:
        for file in test_files(project.root, argument):
            # an object names no fixture
            own = [project.root / file] if file.endswith(".py") else []
            above = [project.root / up / "conftest.py" for up in Path(file).parents]
            yield "\n".join(path.read_text() for path in (*own, *above) if path.is_file())


def piece_path(root: Path, file: str) -> str:
    """Return what a test file is not divided from: its folder if a fixture there has package scope, else the file."""
    conftest = (root / file).with_name("conftest.py")
    if not conftest.is_file():
        return file
    keywords = [node for node in ast.walk(ast.parse(conftest.read_text(), conftest)) if isinstance(node, ast.keyword)]
    scopes = [word.value.value for word in keywords if word.arg == "scope" and isinstance(word.value, ast.Constant)]
    return str(Path(file).parent) if "package" in scopes else file


def _files(root: Path, arguments: Sequence[str]) -> Iterator[Path]:
    for argument in arguments:
        path = root / argument.partition("::")[0]
        # an object asks for no variant
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path] if path.suffix == ".py" else []


def _names(path: Path) -> Iterator[str]:
    """Yield the arguments of a file's calls of boots_with."""
    text = path.read_text()
    if _MARK not in text:
        return
    for node in ast.walk(ast.parse(text, path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == _MARK:
            for argument in node.args:
                if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
                    raise ManifestError(f"{path.name}:{node.lineno}: {_MARK} takes names, written out")
                yield argument.value
