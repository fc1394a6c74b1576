"""A project as data: what its table says, and where it is. For both halves; `kernel_matrix.config.project` reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: where a guest has the project, and below it the engine
HOME = Path("/harness")
ENGINE = ".engine"
#: where a guest has a folder of the user's own
CARRIED = Path("/carried")
#: the environment variable with the project's root; a guest's agent sets it
ROOT_VARIABLE = "KERNEL_MATRIX_ROOT"


@dataclass(frozen=True, slots=True)
class Program:
    """A program whose capabilities are measured; it stands for its object."""

    #: the object's name: ``packets`` is build/packets.bpf.o
    object: str
    #: the program's name in it
    program: str
    #: how it is attached, as the capability table names program types: ``xdp``, ``kprobe``, ``tracepoint``, ...
    type: str
    #: the kernel's symbol that it is attached to, where its type takes one
    symbol: str = ""


@dataclass(frozen=True, slots=True)
class Bench:
    """The tests that `bench` times: one trivial test, and a file whose tests panic the kernel."""

    file: str = ""
    #: a ``-k`` expression that selects one test of the file
    keyword: str = ""
    panic: str = ""


@dataclass(frozen=True, slots=True)
class Project:
    """What is tested: paths are absolute, or relative to ``root`` where they are the names that a user types."""

    root: Path
    #: the file with the table, by its name
    table: str
    #: the file with pytest's configuration, by its name; empty: there is none
    pytest_config: str
    #: folder of kernels.toml, features.toml, rootfs.toml, variants.toml and kernels.lock.toml
    images: Path
    #: whether that is the project's own: then a variant that no test asks for is a mistake in it
    own_images: bool = True
    #: folder of the programs, NAME.bpf.c; None: the project brings no sources
    sources: Path | None = None
    #: compiler flags behind the engine's, and source below that folder -> more of its own
    flags: tuple[str, ...] = ()
    source_flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: folders and files of the tests that run in guests, relative
    tests: tuple[str, ...] = ()
    baselines: Path = Path("baselines")
    #: whether the table names them: then every kernel must have one, and a deleted one is no approval
    keeps_baselines: bool = True
    programs: tuple[Program, ...] = ()
    #: what guests get of the project, relative; empty: all that is not hidden or made
    carry: tuple[str, ...] = ()
    #: the tests that measure the capability table, relative
    measure: tuple[str, ...] = ()
    #: reports of its own, each ``package.module:name``
    reports: tuple[str, ...] = ()
    #: the template of the CI workflow, relative; empty: there is none
    workflow: str = ""
    bench: Bench = Bench()

    @property
    def build(self) -> Path:
        """Where compiled objects are."""
        return self.root / "build"

    @property
    def results(self) -> Path:
        """Where runs leave their results."""
        return self.root / "results"

    @property
    def latest(self) -> Path:
        """The results of the last run."""
        return self.results / "latest"

    @property
    def matrix_baselines(self) -> Path:
        """What the matrix is expected to find, a file for each kernel."""
        return self.baselines / "matrix"

    @property
    def capabilities(self) -> Path:
        """The recorded capability table."""
        return self.baselines / "capabilities.json"

    @property
    def durations(self) -> Path:
        """How long test files take, by which shards are balanced."""
        return self.baselines / "durations.json"

    @property
    def pytest_options(self) -> tuple[str, ...]:
        """What tells pytest its configuration and its root, which it would look for where its arguments are."""
        return ("-c", self.pytest_config) if self.pytest_config else ("-c", "/dev/null", "--rootdir=.")

    def relative(self, path: Path) -> str:
        """Return a path as a user of this project writes it."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    def is_test(self, path: str) -> bool:
        """Whether a relative path is one of the tests that run in guests, or below one of their folders."""
        return any(path == test or path.startswith(f"{test}/") for test in self.tests)


def build_folder() -> Path:
    """Return where this process finds the compiled objects: in a guest, and on the host below the project's root."""
    return Path(os.environ.get(ROOT_VARIABLE, Path.cwd())) / "build"
