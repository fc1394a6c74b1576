"""What of the project is carried into a guest."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from harness.shared.errors import let_out

#: folders that no guest needs, at any depth; hidden ones neither
_LEFT_OUT = frozenset({"__pycache__", "results", "node_modules", "venv", "docs"})
_CACHE = ".pytest_cache"
#: what the host alone reads: a saved worker would not be found again for every line of it that changes
_HOSTS_OWN = (Path("baselines", "matrix"), Path("baselines", "durations.json"))
#: what decides what a run finds; not what lies beside it, nor what is made of it
_SOURCES = frozenset(
    {"baselines", "bpf", "conftest.py", "harness", "pyproject.toml", "requirements", "suites", "tests", "vmimages"}
)
#: when every file was changed last: 1980, before which tar does not believe it
_TIME = 315532800
#: where a guest gets a folder of the user's own (harness.guest.system.child)
_CARRIED = ".carried"


def carried_files(root: Path, *, with_cache: bool = False) -> Iterator[Path]:
    """Yield the files to carry, relative to ``root``, sorted; pytest's cache, which every run changes, if wanted."""
    for folder, folders, files in os.walk(root, onerror=let_out):
        folders[:] = sorted(
            name
            for name in folders
            if name not in _LEFT_OUT and (not name.startswith(".") or (with_cache and name == _CACHE))
        )
        within = Path(folder).relative_to(root)
        if within in _HOSTS_OWN:
            continue
        for name in sorted(files):
            if not name.endswith(".pyc") and within / name not in _HOSTS_OWN:
                yield within / name


def pack(root: Path, *, with_cache: bool = False, carried: Path | None = None) -> bytes:
    """Return a tar of the project as it is now: build results included, caches and reports not.

    The same for every clone of the same content, whosever it is: a worker that one has saved is restored for another.
    ``carried``: a folder that goes with it as it is, but that everything in it belongs to root.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in carried_files(root, with_cache=with_cache):
            tar.add(root / path, arcname=str(path), recursive=False, filter=_of_any_clone)
        if carried is not None:
            tar.add(carried, arcname=_CARRIED, filter=_of_root)
    return buffer.getvalue()


def digest(root: Path) -> str:
    """Return the digest of the project's own files: two machines with the same one run the same."""
    found = hashlib.sha256()
    for path in carried_files(root):
        if path.parts[0] not in _SOURCES:
            continue
        content = hashlib.sha256((root / path).read_bytes()).hexdigest()
        found.update(f"{path}\0{content}\n".encode())
    return found.hexdigest()


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
