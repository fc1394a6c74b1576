"""Run tests in child processes of one that has imported their libraries, in a copy of the project.

A trial forks, so it costs the project's own imports and its tests, not Python's and pytest's start. Only the tests that
enter the mutant's function run, the quickest first.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NoReturn

import pytest

#: what a copy of the project does not need, at its top
_NOT_COPIED = (".git", ".nox", ".venv", "results", ".hypothesis", ".*_cache")
#: a mutant may fill the memory: bytes of address space
_MEMORY = 3 << 30
#: linux/prctl.h
_PR_SET_PDEATHSIG = 1
#: exit status of a trial that pytest did not bring to an end: the module cannot be imported, or collecting failed
BROKEN = 70
OPTIONS = (
    "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=trial",
    "-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning",
    # what a mutant writes, such as `x is "load"`, is not to be warned of
    "-W", "ignore::SyntaxWarning",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Usage:
    """What one test did without a mutant."""

    #: CPU seconds
    seconds: float
    #: module's path -> first lines of the functions that it entered
    entered: Mapping[str, Collection[int]]


@dataclass(frozen=True, slots=True)
class Reference:
    """The tests without a mutant."""

    tests: Mapping[str, Usage]
    #: module's path -> first lines of the functions that were entered while tests were collected
    collecting: Mapping[str, Collection[int]]
    #: the libraries that they import
    libraries: tuple[str, ...]


def copy(root: Path, folder: Path) -> None:
    """Copy a project; files that change in the copy change there only."""
    at_the_top = shutil.ignore_patterns(*_NOT_COPIED)

    def ignored(place: str, names: list[str]) -> set[str]:
        return at_the_top(place, names) if Path(place) == root else set()

    shutil.copytree(root, folder, symlinks=True, ignore=ignored)


class Plugin:
    """Choose tests, and record which functions of the modules a test enters."""

    def __init__(self, root: Path, chosen: Collection[str] | None = None, modules: Collection[str] = ()) -> None:
        self.order = None if chosen is None else {name: number for number, name in enumerate(chosen)}
        self.paths = {str(root / path): path for path in modules}
        self.seconds: dict[str, float] = {}
        self.entered: dict[str, dict[str, set[int]]] = {"": {}}
        self.test = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave the chosen tests, in their order."""
        if (order := self.order) is not None:
            items[:] = sorted((item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        """Attribute what happens to the test."""
        self.test = item.nodeid
        self.entered[item.nodeid] = {}
        start = time.process_time()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = time.process_time() - start

    def trace(self, frame: FrameType, *_: object) -> None:
        """Record the call of a function (as sys.settrace calls it)."""
        code = frame.f_code
        if path := self.paths.get(code.co_filename):
            self.entered[self.test].setdefault(path, set()).add(code.co_firstlineno)


def reference(root: Path, files: Collection[str], modules: Collection[str]) -> Reference | str:
    """Run whole test files without a mutant; return what they use, or their output when they are not green."""
    answer, output = root / "reference.json", root / "reference.log"

    def task() -> int:
        sys.dont_write_bytecode = False
        plugin = Plugin(root, modules=modules)
        sys.settrace(plugin.trace)
        status = int(pytest.main([*OPTIONS, *files], plugins=[plugin]))
        sys.settrace(None)
        entered = {
            test: {path: sorted(lines) for path, lines in paths.items()} for test, paths in plugin.entered.items()
        }
        collecting = entered.pop("")
        tests = {test: {"seconds": plugin.seconds[test], "entered": paths} for test, paths in entered.items()}
        answer.write_text(json.dumps({"tests": tests, "collecting": collecting, "libraries": _libraries(root)}))
        return status

    status = run(root, task, output)
    if status != 0:
        return output.read_text(errors="replace")
    data = json.loads(answer.read_text())
    tests = {test: Usage(**usage) for test, usage in data["tests"].items()}
    return Reference(tests, data["collecting"], tuple(data["libraries"]))


def _libraries(root: Path) -> list[str]:
    def is_ours(module: ModuleType) -> bool:
        places = [getattr(module, "__file__", None) or "", *map(str, getattr(module, "__path__", ()))]
        return any(place.startswith(f"{root}/") for place in places)

    modules = dict(sys.modules)
    return [name for name, module in modules.items() if not is_ours(module) and not name.startswith("__")]


def load(libraries: Collection[str]) -> None:
    """Import libraries, so that trials need not; what only exists where a test made it is left out."""
    with warnings.catch_warnings(action="ignore"):
        for name in libraries:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


def attempt(root: Path, path: str, text: str, tests: Mapping[str, float]) -> int | None:
    """Run tests (node id -> CPU seconds) with another text of a module.

    Return pytest's exit status, BROKEN, a negative signal, or None when they take too long.
    """
    module = root / path
    original, times = module.read_bytes(), module.stat()
    seconds = sum(tests.values())

    def task() -> int:
        files = dict.fromkeys(test.partition("::")[0] for test in tests)
        status = int(pytest.main([*OPTIONS, *files], plugins=[Plugin(root, sorted(tests, key=tests.__getitem__))]))
        return status if status in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED} else BROKEN

    module.write_text(text)
    try:
        return run(root, task, root / "trial.log", *limits(seconds))
    finally:
        module.write_bytes(original)
        os.utime(module, ns=(times.st_atime_ns, times.st_mtime_ns))


def limits(seconds: float) -> tuple[int, float]:
    """Return the limits of a trial, of CPU time and of time, for tests that take so many CPU seconds.

    CPU time decides about loops, because a busy machine does not change it; time only about what waits.
    """
    return int(3 + 5 * seconds), 60 + 60 * seconds


def run(root: Path, task: Callable[[], int], output: Path, cpu: int = 0, wall: float | None = None) -> int | None:
    """Run a task in a child in a copy of the project; kill it, and what it has started, at its limits or at Ctrl-C."""
    child = os.fork()
    if child == 0:
        become(root, task, output, cpu)
    descriptor = os.pidfd_open(child)
    try:
        ready, _, _ = select.select([descriptor], [], [], wall)
    finally:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        # its group is there as long as one of its processes, and the child itself until it is waited for
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.close(descriptor)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if ready and status != -signal.SIGXCPU else None


def become(root: Path, task: Callable[[], int], output: Path, cpu: int = 0) -> NoReturn:
    """Become the process of a trial; never returns."""
    status = BROKEN
    try:
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL):
            raise OSError(ctypes.get_errno(), "prctl")
        os.setsid()
        with output.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(root)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        if cpu:
            resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 5))
        _use(root)
        status = task()
        sys.stdout.flush()
    finally:
        os._exit(status)


def _use(root: Path) -> None:
    """Let this process, and those that it starts, import the project from its copy, and compile it nowhere else."""
    from hypothesis import HealthCheck, Phase, settings

    # which examples are tried does not change from trial to trial; a smaller failing example is of no use
    settings.register_profile(
        "trial",
        max_examples=25,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=[HealthCheck.too_slow],
    )
    places = [str(root / "harness"), str(root)]
    here = str(Path(__file__).parent)
    sys.path[:] = [*places, *(place for place in sys.path if place not in {here, *places})]
    os.environ["PYTHONPATH"] = os.pathsep.join(places)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    os.environ.pop("PYTHONPYCACHEPREFIX", None)
    sys.dont_write_bytecode, sys.pycache_prefix = True, None
