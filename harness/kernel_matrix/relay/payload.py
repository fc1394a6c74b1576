"""What is carried into a guest: the engine's half for guests, the project, and a folder of the user's own."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.shared.errors import let_out
from kernel_matrix.shared.project import ENGINE, Project

#: folders that no guest needs, at any depth; hidden ones neither
_LEFT_OUT = frozenset({"__pycache__", "results", "node_modules", "venv"})
_CACHE = ".pytest_cache"
#: pytest's python_files
TEST_FILES = ("test_*.py", "*_test.py")
#: when every file was changed last: 1980, before which tar does not believe it
_TIME = 315532800
#: where a guest gets a folder of the user's own (kernel_matrix.guest.system.child)
_CARRIED = ".carried"
_PACKAGE = Path(__file__).resolve().parent.parent
#: the first program of a guest, and no module of any other
_AGENT = Path("guest", "agent.py")
#: of the engine, what runs in a guest: a saved worker is found again whatever else of the engine has changed
_GUEST_ROOMS = ("guest", "shared", "diagnose", "arch")
_GUEST_FILES = ("__init__.py", "plugin.py", "config/__init__.py", "config/options.py")


@dataclass(frozen=True, slots=True)
class Payload:
    """What of a machine's files a guest gets."""

    root: Path
    #: what of the project, relative; empty: all that is not hidden or made
    carry: tuple[str, ...] = ()
    #: what of that stays here, relative: what guests do not read makes them no other guests
    leave_out: tuple[str, ...] = ()
    #: with pytest's cache, which ``--lf`` and its like read
    with_cache: bool = False
    #: a folder of the user's own
    carried: Path | None = None


def engine_files() -> Iterator[Path]:
    """Yield the engine's files for guests, relative to the package, sorted."""
    for name in _GUEST_FILES:
        yield Path(name)
    for room in _GUEST_ROOMS:
        yield from (path.relative_to(_PACKAGE) for path in sorted((_PACKAGE / room).rglob("*.py")))


def guest_modules() -> list[str]:
    """Return the engine's modules that tests may import, to be imported before any test is there."""
    files = [path.with_suffix("") for path in engine_files() if path.parts[0] == "guest" and path != _AGENT]
    return [".".join((_PACKAGE.name, *path.parts)).removesuffix(".__init__") for path in files]


def project_files(payload: Payload) -> Iterator[Path]:
    """Yield the project's files to carry, relative to its root, sorted; the engine's own source is none of them."""
    found = {
        path
        for top in payload.carry or (".",)
        for path in _below(payload.root, payload.root / top)
        if not (payload.root / path).is_relative_to(_PACKAGE)
        and not any(path.is_relative_to(each) for each in payload.leave_out)
    }
    if payload.with_cache and (payload.root / _CACHE).is_dir():
        found |= set(_below(payload.root, payload.root / _CACHE))
    yield from sorted(found)


def _below(root: Path, top: Path) -> Iterator[Path]:
    """Yield a file, or a folder's files; what the table names and nobody has made yet is none."""
    if top.is_file():
        yield top.relative_to(root)
        return
    if not top.exists():
        return
    for folder, folders, files in os.walk(top, onerror=let_out):
        folders[:] = [name for name in folders if name not in _LEFT_OUT and not name.startswith(".")]
        yield from (Path(folder, name).relative_to(root) for name in files if not name.endswith(".pyc"))


def of_project(project: Project, *, with_cache: bool = False, carried: Path | None = None) -> Payload:
    """Return what a guest gets of a project: not the baselines that only the host compares with."""
    hosts = tuple(project.relative(path) for path in (project.matrix_baselines, project.durations))
    return Payload(project.root, project.carry, hosts, with_cache=with_cache, carried=carried)


@dataclass(frozen=True, slots=True)
class Packed:
    """A payload as two tars: a guest that has the first is prepared for whatever the second has."""

    #: the engine, and of the project what all its tests share: conftests and modules, pytest's configuration
    shared: bytes
    #: test files, objects and all else
    rest: bytes


def pack(payload: Payload) -> Packed:
    """Return it as it is now: build results included, caches and reports not.

    The same for every clone of the same content, whosever it is: a worker that one has saved is restored for another.
    The user's own folder goes with it as it is, but that everything in it belongs to root.
    """
    shared, rest = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=shared, mode="w") as first, tarfile.open(fileobj=rest, mode="w") as second:
        for path in engine_files():
            name = str(Path(ENGINE, _PACKAGE.name, path))
            first.add(_PACKAGE / path, arcname=name, recursive=False, filter=_of_any_clone)
        for path in project_files(payload):
            tar = first if _is_shared(path) else second
            tar.add(payload.root / path, arcname=str(path), recursive=False, filter=_of_any_clone)
        if payload.carried is not None:
            second.add(payload.carried, arcname=_CARRIED, filter=_of_root)
    return Packed(shared.getvalue(), rest.getvalue())


def _is_shared(path: Path) -> bool:
    """Whether a file is none that a change of one test changes: modules that are no test files, configuration."""
    if path.suffix == ".py":
        return not any(path.match(pattern) for pattern in TEST_FILES)
    return len(path.parts) == 1 and path.suffix in {".toml", ".ini", ".cfg"}


def digest(project: Project) -> str:
    """Return the digest of the engine and the project's own files: two machines with the same one run the same.

    What is compiled is left out: each machine compiles its own.
    """
    state = hashlib.sha256()
    own = of_project(project)
    made = project.build.relative_to(project.root)
    sources = [] if project.sources is None else list(_below(project.root, project.sources))
    found = {path for path in [*project_files(own), *sources] if not path.is_relative_to(made)}
    files = {f"project/{path}": project.root / path for path in found}
    files |= {f"images/{path.name}": path for path in project.images.iterdir() if path.is_file()}
    files |= {f"engine/{path}": _PACKAGE / path for path in _below(_PACKAGE, _PACKAGE)}
    files[f"project/{project.table}"] = project.root / project.table
    for name, path in sorted(files.items()):
        state.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return state.hexdigest()


def _of_any_clone(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out what git does not keep: owner, time, and of the mode all but whether it is a program."""
    member.mtime = _TIME
    if member.isfile():
        member.mode = 0o755 if member.mode & 0o100 else 0o644
    return _of_root(member)


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def size(folder: Path) -> int:
    """Return the bytes that a folder's files have."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
