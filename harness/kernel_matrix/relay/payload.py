"""The payload of a guest: the guest's part of the engine, the project, and a folder of the user."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kernel_matrix.shared.bpf import compiled
from kernel_matrix.shared.errors import reraise
from kernel_matrix.shared.project import (
    ARRIVED,
    COMPILING_LOADERS,
    ENGINE,
    KERNEL_CONFIG,
    LOADER_PROGRAMS,
    MODULES,
    Project,
)

#: folders that no guest needs, at any depth; hidden folders are left out, too
_LEFT_OUT = frozenset({"__pycache__", "results", "node_modules", "venv"})
#: the file that marks a folder of made files, such as Cargo's target (https://bford.info/cachedir/)
_MADE = "CACHEDIR.TAG"
_CACHE = ".pytest_cache"
#: the project's root, relative to itself
_HERE = "."
#: pytest's python_files
TEST_FILES = ("test_*.py", "*_test.py")
#: modification time of every file: 1980, because tar does not trust earlier ones
_TIME = 315532800
_PACKAGE = Path(__file__).resolve().parent.parent
#: the first program of a guest; no module imports it
_AGENT = Path("guest", "agent.py")
#: the rooms of the engine that run in a guest: a saved worker stays valid when other rooms change
_GUEST_ROOMS = ("guest", "shared", "diagnose", "arch")
_GUEST_FILES = ("__init__.py", "plugin.py", "config/__init__.py", "config/options.py")


@dataclass(frozen=True, slots=True)
class Kept:
    """What guests of a kernel have compiled, and where the sources of it are."""

    #: the cache's folder, named after the compiler
    folder: Path
    build: Path
    sources: Path


@dataclass(frozen=True, slots=True)
class Payload:
    """Which files of the host a guest gets."""

    root: Path
    #: files and folders of the project, relative; empty: everything that is neither hidden nor generated
    carry: tuple[str, ...] = ()
    #: which of them are left out, relative: files that guests do not read must not invalidate saved workers
    leave_out: tuple[str, ...] = ()
    #: whether pytest's cache is included, which options such as ``--lf`` read
    with_cache: bool = False
    #: a folder of the user
    carried: Path | None = None
    #: the loaders' programs by their names
    programs: Mapping[str, Path] = field(default_factory=dict)
    #: the configuration of its kernel; None: its objects do not need it
    config: Path | None = None
    #: a folder with modules of its kernel for its objects; None: they need none beside those of the image
    modules: Path | None = None
    #: None: nothing is compiled in the guest
    kept: Kept | None = None

    @property
    def compiler(self) -> str:
        """The name of what compiles in the guest; empty where nothing does."""
        return self.kept.folder.name if self.kept else ""


def engine_files() -> Iterator[Path]:
    """Yield the engine's files for guests, relative to the package, sorted."""
    for name in _GUEST_FILES:
        yield Path(name)
    for room in _GUEST_ROOMS:
        # headers: a loader that compiles in a guest includes them
        files = [path for pattern in ("*.py", "*.h") for path in (_PACKAGE / room).rglob(pattern)]
        yield from (path.relative_to(_PACKAGE) for path in sorted(files))


def guest_modules() -> list[str]:
    """Return the engine's modules that tests may import; a guest imports them before it gets tests."""
    files = [path.with_suffix("") for path in engine_files() if _is_module(path)]
    return [".".join((_PACKAGE.name, *path.parts)).removesuffix(".__init__") for path in files]


def _is_module(path: Path) -> bool:
    return path.parts[0] == "guest" and path.suffix == ".py" and path != _AGENT


def project_files(payload: Payload) -> Iterator[Path]:
    """Yield the project's files to carry, relative to its root, sorted; the engine's own source is left out."""
    paths = {
        path
        for top in payload.carry or (_HERE,)
        for path in _below(payload.root, payload.root / top)
        if not (payload.root / path).is_relative_to(_PACKAGE)
        and not any(path.is_relative_to(left_out) for left_out in payload.leave_out)
    }
    if payload.with_cache and (payload.root / _CACHE).is_dir():
        paths |= set(_below(payload.root, payload.root / _CACHE))
    yield from sorted(paths)


def _below(root: Path, top: Path) -> Iterator[Path]:
    """Yield a file, or a folder's files; nothing when the path does not exist yet."""
    if top.is_file():
        yield top.relative_to(root)
        return
    if not top.exists():
        return
    for folder, folders, files in os.walk(top, onerror=reraise):
        folders[:] = [name for name in folders if not _is_left_out(Path(folder, name))]
        yield from (Path(folder, name).relative_to(root) for name in files if not name.endswith(".pyc"))


def _is_left_out(folder: Path) -> bool:
    return folder.name in _LEFT_OUT or folder.name.startswith(".") or (folder / _MADE).is_file()


def of_project(
    project: Project,
    *,
    with_cache: bool = False,
    carried: Path | None = None,
    programs: Mapping[str, Path] | None = None,
    compiled_by: Path | None = None,
    config: Path | None = None,
    modules: Path | None = None,
) -> Payload:
    """Return what a guest gets of a project, without the baselines, which only the host reads.

    ``compiled_by``: the cache's folder of what has been compiled in guests like it; ``config``: the configuration of
    its kernel, which its objects may read; ``modules``: a folder with those that they need.
    """
    host_only = tuple(project.relative(path) for path in (project.matrix_baselines, project.durations))
    carry = _carried(project)
    if carry and project.sources is not None and COMPILING_LOADERS & set(project.all_loaders):
        carry = tuple(dict.fromkeys((*carry, project.relative(project.sources))))
    kept = None
    if compiled_by is not None and project.sources is not None:
        kept = Kept(compiled_by, project.build, project.sources)
    return Payload(project.root, carry, host_only, with_cache, carried, programs or {}, config, modules, kept)


def _carried(project: Project) -> tuple[str, ...]:
    """Return what a guest gets of a project.

    One that has objects or commands and no tests carries nothing but those, and the programs that commands name.
    """
    if not (project.objects or project.commands):
        return project.carry
    all_of_it = (_HERE,) if project.tests and not project.carry else ()
    return tuple(dict.fromkeys((*all_of_it, *project.carry, *project.all_tests, *_programs(project))))


def _programs(project: Project) -> Iterator[str]:
    """Yield the project's files that its commands name."""
    for command in project.commands:
        for word in filter(None, re.split(r"[\s;|&()<>'\"=]+", command.run)):
            path = project.root / word
            if path.is_file() and path.resolve().is_relative_to(project.root):
                yield os.path.relpath(path, project.root)


@dataclass(frozen=True, slots=True)
class Packed:
    """A payload as two tars: a guest that has the first is prepared for any content of the second."""

    #: the engine, and what all tests of the project share: conftests, modules, pytest's configuration
    shared: bytes
    #: everything else: test files, objects
    rest: bytes


def pack(payload: Payload) -> Packed:
    """Pack the current files: with build results, without caches and reports.

    Every clone with the same content gives the same bytes, for every user: a worker saved from one clone is restored
    for another. The user's own folder is packed unchanged, except that everything in it belongs to root.
    """
    shared, rest = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=shared, mode="w") as first, tarfile.open(fileobj=rest, mode="w") as second:
        for path in engine_files():
            name = str(Path(ENGINE, _PACKAGE.name, path))
            first.add(_PACKAGE / path, arcname=name, recursive=False, filter=_of_any_clone)
        for loader, program in sorted(payload.programs.items()):
            first.add(program, arcname=str(LOADER_PROGRAMS / loader), filter=_of_any_clone)
        for path in project_files(payload):
            tar = first if _is_shared(path) else second
            tar.add(payload.root / path, arcname=str(path), recursive=False, filter=_of_any_clone)
        if payload.config is not None:
            second.add(payload.config, arcname=KERNEL_CONFIG, filter=_of_any_clone)
        for path in sorted(payload.modules.iterdir()) if payload.modules else ():
            second.add(path, arcname=str(Path(MODULES, path.name)), filter=_of_any_clone)
        for name, data in _entries(payload):
            _add_bytes(second, str(compiled.FOLDER / name), data)
        if payload.carried is not None:
            second.add(payload.carried, arcname=ARRIVED, filter=_of_root)
    return Packed(shared.getvalue(), rest.getvalue())


def _entries(payload: Payload) -> Iterator[tuple[str, bytes]]:
    """Yield what the guest need not compile, by its name."""
    if payload.kept is not None:
        kept = payload.kept
        for _, key, data in compiled.entries(kept.folder, _PACKAGE, kept.build, kept.sources):
            if data is not None:
                yield key, data


def lacking(payload: Payload) -> frozenset[str]:
    """Return the objects whose sources a loader would compile in the guest, because nothing is kept of them."""
    if payload.kept is None:
        return frozenset()
    kept = payload.kept
    rows = compiled.entries(kept.folder, _PACKAGE, kept.build, kept.sources)
    return frozenset(name for name, _, data in rows if data is None)


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(_of_any_clone(member), io.BytesIO(data))


def _is_shared(path: Path) -> bool:
    """Whether a file stays the same when a test is edited: modules that are not test files, configuration."""
    if path.suffix == ".py":
        return not any(path.match(pattern) for pattern in TEST_FILES)
    return len(path.parts) == 1 and path.suffix in {".toml", ".ini", ".cfg"}


def digest(project: Project) -> str:
    """Return the digest of the engine and the project's payload files: machines with equal digests run the same tests.

    Compiled files are left out: each machine compiles its payload.
    """
    state = hashlib.sha256()
    payload = of_project(project)
    build = project.build.relative_to(project.root)
    sources = [] if project.sources is None else list(_below(project.root, project.sources))
    paths = {path for path in [*project_files(payload), *sources] if not path.is_relative_to(build)}
    files = {f"project/{path}": project.root / path for path in paths}
    files |= {f"images/{path.name}": path for path in project.images.iterdir() if path.is_file()}
    files |= {f"engine/{path}": _PACKAGE / path for path in _below(_PACKAGE, _PACKAGE)}
    loaders = _PACKAGE / "loaders"
    files |= {f"loaders/{path}": loaders / path for path in _below(loaders, loaders)}
    files[f"project/{project.table}"] = project.root / project.table
    for name, path in sorted(files.items()):
        state.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return state.hexdigest()


def _of_any_clone(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Drop what git does not keep: owner, time, and the mode except whether the file is executable."""
    member.mtime = _TIME
    if member.isfile():
        member.mode = 0o755 if member.mode & 0o100 else 0o644
    return _of_root(member)


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def size(folder: Path) -> int:
    """Return the size in bytes of all files in a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
