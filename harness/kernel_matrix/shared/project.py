"""A project as data: its table and its paths, for host and guest. `kernel_matrix.config.project` reads the table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel_matrix.shared.bpf.object_table import ObjectTable

#: a guest's folder with the project, and below it the engine
HOME = Path("/harness")
ENGINE = ".engine"
#: below the project: the loaders' programs
LOADER_PROGRAMS = Path(ENGINE, "loaders")
#: a guest's folder with a folder of the user
CARRIED = Path("/carried")
#: below the folder of compiled objects: the engine's own
ENGINE_OBJECTS = "engine"
#: below its project: the configuration of its kernel, as it arrives
KERNEL_CONFIG = ".kernel-config"
#: below its project: modules that its objects need, NAME.ko, and the file that says which object needs which
MODULES, NEEDED = ".kernel-modules", "needed.json"
#: below its project: the same folder as it arrives
ARRIVED = ".carried"
#: the loader that needs no program beside the tests
IN_PROCESS_LOADER = "libbpf"
#: the loaders that compile in a guest, for which they need the headers of its kernel
COMPILING_LOADERS = frozenset({"bcc"})
#: a guest's file with the environment variables that follow from its speed; its agent writes it when it wakes
LIMITS = Path("/run/harness-limits")
#: the environment variable with the project's root; a guest's agent sets it
ROOT_VARIABLE = "KERNEL_MATRIX_ROOT"
#: the environment variable with the folder of the programs' sources below the root; a guest's pytest sets it
SOURCES_VARIABLE = "KERNEL_MATRIX_SOURCES"
#: memory of a guest
MEMORY_MIB = 512


@dataclass(frozen=True, slots=True)
class Program:
    """A program whose capabilities are measured; it represents its object."""

    #: the object's name: ``packets`` is build/packets.bpf.o
    object: str
    #: the program's name in it
    program: str
    #: how it is attached, as the capability table names program types: ``xdp``, ``kprobe``, ``tracepoint``, ...
    type: str
    #: the kernel symbol that it is attached to; empty when its type needs none
    symbol: str = ""


@dataclass(frozen=True, slots=True)
class Bench:
    """The tests that `bench` times: one trivial test, and a file whose tests panic the kernel."""

    file: str = ""
    #: a ``-k`` expression that selects one test of the file
    keyword: str = ""
    panic: str = ""


@dataclass(frozen=True, slots=True)
class Mutation:
    """The mutants of the project's programs (`mutants`)."""

    #: folder with the list of mistakes, NAME.toml for the program NAME, equivalent.toml and idle.toml, relative;
    #: empty: no list
    mistakes: str = ""
    #: program -> the files and folders of the tests that it is held against; the programs that have mutants
    tests: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: options of pytest that leave out tests which do not use the mutated object
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the table, such as a loader's test of itself: its exit status is each kernel's cell."""

    #: a line for sh, in the project's folder of the guest
    run: str
    #: seconds of the reference machine
    timeout: float = 60.0
    #: a reference: it fails, and what makes it succeed is news; empty: it succeeds
    known_issue: str = ""
    #: the kernels where it fails, by their names; empty: everywhere
    known_issue_kernels: tuple[str, ...] = ()

    def fails_on(self, kernel: str) -> bool:
        """Whether it is known to fail; ``kernel`` is the name without a variant."""
        return bool(self.known_issue) and (not self.known_issue_kernels or kernel in self.known_issue_kernels)

    @classmethod
    def of_json(cls, fields: Mapping[str, Any]) -> Command:
        """Read the result of `dataclasses.asdict` after JSON."""
        return cls(**{**fields, "known_issue_kernels": tuple(fields.get("known_issue_kernels", ()))})


@dataclass(frozen=True, slots=True)
class GuestNeeds:
    """What the project's guests have beside what the engine gives to all."""

    #: Debian packages of the root image
    packages: tuple[str, ...] = ()
    #: pip's requirements for the guest's Python; None: no more
    requirements: Path | None = None
    memory_mib: int = MEMORY_MIB


@dataclass(frozen=True, slots=True)
class Project:
    """The project under test; paths are absolute, or relative to ``root`` when a user types them."""

    root: Path
    #: name of the file with the table
    table: str
    #: name of the file with pytest's configuration; empty: there is none
    pytest_config: str
    #: folder of kernels.toml, features.toml, rootfs.toml, variants.toml and kernels.lock.toml
    images: Path
    #: whether that folder is the project's own: then a variant that no test uses is an error
    own_images: bool = True
    #: folder of the programs, NAME.bpf.c; None: the project has no sources
    sources: Path | None = None
    #: compiler flags after the engine's, and further flags by source below that folder
    flags: tuple[str, ...] = ()
    source_flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: folders of programs in Rust, a crate each, relative
    rust: tuple[str, ...] = ()
    #: folders and files of the tests that run in guests, relative
    tests: tuple[str, ...] = ()
    #: patterns of foreign objects, each a test file, relative; and what the table says of them
    objects: tuple[str, ...] = ()
    object_table: ObjectTable = field(default_factory=ObjectTable)
    #: the command that makes the objects, run on the host before everything else; empty: nothing does
    make: str = ""
    #: commands that run in guests, each a cell
    commands: tuple[Command, ...] = ()
    #: the kernels of a run that names none; empty: core
    kernels: tuple[str, ...] = ()
    guest: GuestNeeds = GuestNeeds()
    baselines: Path = Path("baselines")
    #: whether the table names them: then every kernel must have one, and deleting one approves nothing
    keeps_baselines: bool = True
    programs: tuple[Program, ...] = ()
    #: the loaders with which tests load objects, by their modules' names in guest/bpf/loaders; empty: libbpf, and node
    #: ids without it
    loaders: tuple[str, ...] = ()
    #: further loaders, with which tests run where the command line names them
    loaders_on_request: tuple[str, ...] = ()
    #: files and folders that guests get, relative; empty: everything that is neither hidden nor generated
    carry: tuple[str, ...] = ()
    #: the tests that measure the capability table, relative
    measure: tuple[str, ...] = ()
    #: further reports, each ``package.module:name``
    reports: tuple[str, ...] = ()
    #: the template of the CI workflow, relative; empty: there is none
    workflow: str = ""
    bench: Bench = Bench()
    mutation: Mutation = field(default_factory=Mutation)

    @property
    def all_loaders(self) -> tuple[str, ...]:
        """Every loader that a run may have."""
        return (*self.loaders, *self.loaders_on_request)

    @property
    def build(self) -> Path:
        """The folder of compiled objects."""
        return self.root / "build"

    @property
    def results(self) -> Path:
        """The folder with the results of runs."""
        return self.root / "results"

    @property
    def latest(self) -> Path:
        """The results of the last run."""
        return self.results / "latest"

    @property
    def matrix_baselines(self) -> Path:
        """The folder of the matrix's expected results, a file for each kernel."""
        return self.baselines / "matrix"

    @property
    def capabilities(self) -> Path:
        """The recorded capability table."""
        return self.baselines / "capabilities.json"

    @property
    def durations(self) -> Path:
        """The recorded durations of test files, by which shards are balanced."""
        return self.baselines / "durations.json"

    @property
    def mutants(self) -> Path:
        """The recorded outcomes of the mutants."""
        return self.baselines / "mutants.json"

    @property
    def mutant_tests(self) -> Path:
        """A mutant for each test that has noticed one and is not among the recorded outcomes."""
        return self.baselines / "mutant_tests.json"

    @property
    def object_files(self) -> tuple[str, ...]:
        """The object files that exist now, relative, sorted."""
        paths = {path for pattern in self.objects for path in self.root.glob(pattern)}
        engine = self.build / ENGINE_OBJECTS
        return tuple(sorted(self.relative(path) for path in paths if not path.is_relative_to(engine)))

    @property
    def all_tests(self) -> tuple[str, ...]:
        """Folders and files of all tests that run in guests; the objects' files, and for commands the table's."""
        return (*self.tests, *self.object_files, *self.command_files)

    @property
    def command_files(self) -> tuple[str, ...]:
        """The table's file, which is the test file of its commands; nothing without commands."""
        return (self.table,) if self.commands else ()

    @property
    def pytest_options(self) -> tuple[str, ...]:
        """Options that name pytest's configuration and root; without them, pytest searches from its arguments."""
        return ("-c", self.pytest_config) if self.pytest_config else ("-c", "/dev/null", "--rootdir=.")

    def relative(self, path: Path) -> str:
        """Return a path as a user of this project writes it."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    def is_test(self, path: str) -> bool:
        """Whether a relative path is one of the tests that run in guests, or below one of their folders."""
        return any(path == test or path.startswith(f"{test}/") for test in self.all_tests)


def build_folder() -> Path:
    """Return this process's folder of compiled objects; outside a guest, call it in the project's root."""
    return Path(os.environ.get(ROOT_VARIABLE, Path.cwd())) / "build"


def sources_folder() -> Path:
    """Return this process's folder of the programs' sources."""
    return build_folder().parent / os.environ.get(SOURCES_VARIABLE, "bpf")


def loader_program(name: str) -> Path:
    """Return a guest's path of a loader's program (harness/loaders)."""
    return HOME / LOADER_PROGRAMS / name


def loader_test_name(loader: str, test: str) -> str:
    """Return the name of a loader's program with tests (``[[tests]]`` of its loader.toml) beside the loader's own."""
    return f"{loader}.{test}"


def loader_test(loader: str, test: str) -> Path:
    """Return a guest's path of a loader's program with tests."""
    return loader_program(loader_test_name(loader, test))
