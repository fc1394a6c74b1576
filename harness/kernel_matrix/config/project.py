"""The project's table as frozen data: ``[tool.kernel-matrix]`` of pyproject.toml, or all of kernel-matrix.toml."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from kernel_matrix.config import keys, scenarios
from kernel_matrix.config import objects as object_tables
from kernel_matrix.shared.errors import ManifestError
from kernel_matrix.shared.project import ROOT_VARIABLE, Bench, Mutation, Program, Project

OWN_FILE = "kernel-matrix.toml"
#: the table in pyproject.toml
TABLE = "tool.kernel-matrix"
#: the environment variable with the objects of a run of objects that no table names, a list as JSON
OBJECTS_VARIABLE = "KERNEL_MATRIX_OBJECTS"
PYPROJECT = "pyproject.toml"
#: the engine's kernels, features, variants and guest image, for a project without its own
DEFAULT_IMAGES = Path(__file__).resolve().parent.parent / "defaults"

#: the loaders of guests, each a module
LOADERS = sorted(
    path.stem
    for path in (Path(__file__).resolve().parent.parent / "guest" / "bpf" / "loaders").glob("*.py")
    if path.stem != "__init__"
)

#: pytest's configuration files in the order in which it looks for them -> the text that makes a file one
_PYTEST_CONFIGS = {
    "pytest.toml": "",
    ".pytest.toml": "",
    "pytest.ini": "",
    ".pytest.ini": "",
    "pyproject.toml": "[tool.pytest",
    "tox.ini": "[pytest]",
    "setup.cfg": "[tool:pytest]",
}

_Name = keys.Name


class _Compile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """[tool.kernel-matrix.compile]: how the sources become objects."""

    sources: _Name = "bpf"
    #: flags that come after the engine's
    flags: tuple[str, ...] = ()
    #: source -> flags for it, after those
    source_flags: dict[str, tuple[str, ...]] = {}
    #: folders of crates, programs in Rust
    rust: tuple[_Name, ...] = ()


class _Program(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    object: _Name
    program: _Name
    type: _Name
    symbol: str = ""


class _Bench(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    file: _Name
    keyword: str = ""
    panic: str = ""


class _Mutants(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[tool.kernel-matrix.mutants]: the programs that are mutated, and what notices it."""

    tests: dict[str, tuple[_Name, ...]]
    mistakes: str = ""
    options: tuple[str, ...] = ()


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    images: _Name | None = None
    compile: _Compile | None = None
    tests: tuple[_Name, ...] | None = None
    objects: tuple[_Name, ...] = ()
    object: dict[str, object_tables.Object] = {}
    expect: tuple[object_tables.Expect, ...] = ()
    scenario: tuple[scenarios.Scenario, ...] = ()
    capabilities: tuple[_Name, ...] | None = None
    build: _Name | None = None
    commands: tuple[_Name | keys.CommandTable, ...] = ()
    kernels: tuple[_Name, ...] = ()
    guest: keys.Guest = keys.Guest()
    baselines: _Name | None = None
    programs: tuple[_Program, ...] = ()
    loaders: tuple[_Name, ...] = ()
    loaders_on_request: tuple[_Name, ...] = ()
    carry: tuple[_Name, ...] = ()
    measure: tuple[_Name, ...] = ()
    reports: tuple[_Name, ...] = ()
    workflow: str = ""
    bench: _Bench | None = None
    mutants: _Mutants | None = None


def find(start: Path | None = None) -> Project:
    """Return the project of a folder: the nearest folder, from it upwards, that has a table.

    The environment variable KERNEL_MATRIX_ROOT overrides it. Raises ManifestError.
    """
    setting = os.environ.get(ROOT_VARIABLE)
    # resolved like the engine's files, which must be found below the project
    folder = (Path(setting) if setting else start or Path.cwd()).resolve()
    for candidate in [folder] if setting else [folder, *folder.parents]:
        if (project := load(candidate)) is not None:
            return project
    where = "" if setting else " or above"
    raise ManifestError(f"{folder}: no project: no {OWN_FILE}, and no [tool.kernel-matrix] in {PYPROJECT}, here{where}")


def find_any() -> Project | None:
    """Return the project of the working directory, None when there is none; raises ManifestError for a wrong table."""
    here = Path.cwd().resolve()
    return next((project for folder in (here, *here.parents) if (project := load(folder)) is not None), None)


def load(root: Path) -> Project | None:
    """Read the table of that folder; None when it has none. Raises ManifestError for a wrong one.

    The environment variable KERNEL_MATRIX_OBJECTS makes it a project of these objects, without tests and baselines.
    """
    project = _load(root)
    if (objects := os.environ.get(OBJECTS_VARIABLE)) is None:
        return project
    bare = project or replace(_project(root, OWN_FILE, {}, OWN_FILE), sources=None)
    paths = tuple(json.loads(objects))
    return replace(
        bare,
        objects=paths,
        object_table=bare.object_table.about(paths),
        make="",
        commands=(),
        tests=(),
        programs=(),
        baselines=root / "no baselines",
        keeps_baselines=False,
    )


def _load(root: Path) -> Project | None:
    separate, shared = root / OWN_FILE, root / PYPROJECT
    if separate.is_file():
        return _project(root, OWN_FILE, _read(separate), OWN_FILE)
    tables = _read(shared).get("tool") if shared.is_file() else None
    if not isinstance(tables, dict) or "kernel-matrix" not in tables:
        return None
    return _project(root, PYPROJECT, tables["kernel-matrix"], f"{PYPROJECT}: [tool.kernel-matrix]")


def _project(root: Path, table: str, content: Any, where: str) -> Project:  # noqa: ANN401 - a value of TOML
    try:
        settings = msgspec.convert(content, _Table)
    except msgspec.ValidationError as error:
        known = ", ".join(field.encode_name for field in msgspec.structs.fields(_Table))
        raise ManifestError(f"{where}: {error} (keys: {known})") from error
    compiled = settings.compile
    if compiled is None and (root / "bpf").is_dir():
        compiled = _Compile()
    project = Project(
        root=root,
        table=table,
        pytest_config=_pytest_config(root),
        images=root / settings.images if settings.images else DEFAULT_IMAGES,
        own_images=settings.images is not None,
        sources=root / compiled.sources if compiled else None,
        flags=compiled.flags if compiled else (),
        source_flags=compiled.source_flags if compiled else {},
        rust=tuple(path.rstrip("/") for path in compiled.rust) if compiled else (),
        tests=tuple(path.rstrip("/") for path in _tests(settings)),
        objects=settings.objects,
        object_table=replace(
            object_tables.table(
                settings.object, settings.expect, keys.capabilities(settings.capabilities, where), where
            ),
            scenarios=scenarios.table(settings.scenario, where),
        ),
        make=settings.build or "",
        commands=keys.commands(settings.commands, where),
        kernels=settings.kernels,
        guest=keys.guest(settings.guest, root, where),
        baselines=root / (settings.baselines or "baselines"),
        keeps_baselines=settings.baselines is not None,
        programs=tuple(Program(entry.object, entry.program, entry.type, entry.symbol) for entry in settings.programs),
        loaders=settings.loaders,
        loaders_on_request=settings.loaders_on_request,
        carry=tuple(path.rstrip("/") for path in settings.carry),
        measure=settings.measure,
        reports=settings.reports,
        workflow=settings.workflow,
        bench=Bench(settings.bench.file, settings.bench.keyword, settings.bench.panic) if settings.bench else Bench(),
        mutation=_mutation(settings.mutants),
    )
    _check(project, settings, where)
    _check_loaders((*settings.loaders, *settings.loaders_on_request), where)
    return project


def _tests(table: _Table) -> tuple[str, ...]:
    """Return the folders of tests: those of the table; a project of objects or commands has none of itself."""
    return table.tests if table.tests is not None else () if table.objects or table.commands else ("tests",)


def _mutation(table: _Mutants | None) -> Mutation:
    if table is None:
        return Mutation()
    return Mutation(
        table.mistakes.rstrip("/"),
        {program: tuple(path.rstrip("/") for path in paths) for program, paths in table.tests.items()},
        table.options,
    )


def _pytest_config(root: Path) -> str:
    """Return the configuration file that pytest finds, empty when there is none."""
    for name, sign in _PYTEST_CONFIGS.items():
        if (root / name).is_file() and sign in (root / name).read_text():
            return name
    return ""


def _check(project: Project, table: _Table, where: str) -> None:
    """Refuse paths of the table that do not exist in the project; raises ManifestError."""
    named = {"images": [table.images], "measure": table.measure, "workflow": [table.workflow]}
    if table.compile is not None:
        named["compile.sources"] = [table.compile.sources]
        named["compile.rust"] = [f"{crate}/Cargo.toml" for crate in table.compile.rust]
        named["compile.source-flags"] = [f"{table.compile.sources}/{source}" for source in table.compile.source_flags]
    if table.mutants is not None:
        sources = project.relative(project.sources or project.root / "bpf")
        tests = [path for paths in table.mutants.tests.values() for path in paths]
        named["mutants.tests"] = [*(f"{sources}/{program}.bpf.c" for program in table.mutants.tests), *tests]
        named["mutants.mistakes"] = [table.mutants.mistakes]
    for key, paths in named.items():
        for path in paths:
            if path and not (project.root / path).exists():
                raise ManifestError(f"{where}: {key}: {path}: no such file or folder below {project.root}")
    below = {"tests": _tests(table), "objects": table.objects, "carry": table.carry, "measure": table.measure}
    below["guest.requirements"] = (table.guest.requirements,) if table.guest.requirements else ()
    if table.compile is not None:
        below |= {"compile.sources": (table.compile.sources,), "compile.rust": table.compile.rust}
    for key, paths in below.items():
        for path in paths:
            if Path(path).is_absolute() or ".." in Path(path).parts:
                raise ManifestError(f"{where}: {key}: {path}: not a path below the project")


def _check_loaders(names: tuple[str, ...], where: str) -> None:
    for name in names:
        if name not in LOADERS:
            raise ManifestError(f"{where}: loaders: {name}: no such loader (known: {', '.join(LOADERS)})")
    if len(set(names)) < len(names):
        raise ManifestError(f"{where}: loaders: a loader is named twice")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: {error}") from error
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}") from error
