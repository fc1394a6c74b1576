"""The cache of images, shared by runs: each image is complete or missing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from kernel_matrix.shared import atomic, hints, marker
from kernel_matrix.shared.errors import ImageError, ignoring, reraise

#: days after its last use when `prune` deletes an image
UNUSED_DAYS = 30
#: folders of images in the cache, and of what guests have compiled
_KINDS = ("kernels", "headers", "roots", "compiled", "modules", "needed")
#: seconds that a terminated tool has to delete its files
_SECONDS_TO_CLEAN_UP = 5.0


def cache_dir() -> Path:
    """Return the cache's folder: KERNEL_MATRIX_CACHE, or the user's cache folder."""
    setting = os.environ.get("KERNEL_MATRIX_CACHE")
    return Path(setting).absolute() if setting else user_cache_path("kernel-matrix")


def compiled_dir() -> Path:
    """Return the cache's folder of what guests have compiled, in a folder for each compiler."""
    return cache_dir() / "compiled"


def digest(parts: Iterable[bytes | str]) -> str:
    """Return a digest of all parts, 16 hexadecimal digits."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "big") + data)
    return state.hexdigest()[:16]


def content_digest(path: Path) -> str:
    """Return the sha256 of a file of an image, which is never changed; it is kept beside the file."""
    state = path.stat()
    same = f"{state.st_size} {state.st_mtime_ns} {state.st_ino}"
    kept = path.with_name(f".{path.name}.sha256")
    with ignoring(errno.ENOENT):
        content, _, of = kept.read_text().strip().partition(" ")
        if of == same:
            return content
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    # a read-only cache is left unchanged
    with ignoring(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT):
        atomic.write(kept, f"{content} {same}\n")
    return content


@contextlib.contextmanager
def locked(name: str) -> Iterator[Path]:
    """Hold the cache's lock of that name; yield the cache's folder."""
    folder = cache_dir()
    with disk_errors(folder):
        (folder / "locks").mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "locks" / f"{name}.lock"):
        yield folder


@contextlib.contextmanager
def building(target: Path) -> Iterator[Path]:
    """Yield a new folder; rename it to ``target`` after the block, or delete it if the block fails."""
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".building-", dir=target.parent))
        try:
            marker.mark(folder)
            yield folder
            folder.chmod(0o755)
            folder.rename(target)
        except BaseException:
            # the block's error matters more than a folder that is left, which `prune` deletes
            with contextlib.suppress(OSError):
                remove(folder)
            raise


@contextlib.contextmanager
def working(prefix: str, folder: Path) -> Iterator[Path]:
    """Yield a new folder below ``folder`` and delete it after the block; `prune` deletes those of killed runs."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder) as name:
        place = Path(name)
        marker.mark(place)
        yield place


def used(folder: Path) -> None:
    """Record that a run uses an image, if it exists; a read-only cache is left unchanged.

    This also marks an image from a version before the marker: its name is a digest of its content, so it is ours.
    """
    with ignoring(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS):
        if not marker.marked(folder):
            marker.mark(folder)
        os.utime(folder)


def prune(days: float = UNUSED_DAYS) -> list[Path]:
    """Delete images that no run has used for so many days, and incomplete ones of killed runs; return them.

    Folders without the marker stay. Running guests continue, because their files are open.
    """
    before = time.time() - days * 86400
    deleted = []
    for place in sorted(path for kind in _KINDS for path in (cache_dir() / kind).glob("*")):
        with contextlib.suppress(FileNotFoundError):  # another run was faster
            if marker.marked(place) and place.stat().st_mtime < before:
                gone = Path(tempfile.mkdtemp(prefix=".gone-", dir=place.parent))
                marker.mark(gone)
                place.rename(gone / place.name)
                remove(gone)
                deleted.append(place)
    return deleted


@contextlib.contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Convert a failure of the disk into an ImageError of one line."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise ImageError(f"no space left for images in {where.parent} ({error.strerror})") from error
        raise ImageError(f"{error.filename or where}: {error.strerror or error}") from error


def remove(folder: Path) -> None:
    """Delete a folder with its read-only parts."""
    for path, folders, _ in os.walk(folder, onerror=reraise):
        for name in folders:
            # a link may point out of the folder: a root has /var/run -> /run
            if not (Path(path) / name).is_symlink():
                (Path(path) / name).chmod(0o700)
    shutil.rmtree(folder)


def _end(process: subprocess.Popen[str]) -> None:
    """End a tool's process group, which Ctrl-C does not reach: first by SIGTERM, so that it can clean up."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_SECONDS_TO_CLEAN_UP)


def run(command: list[str], what: str, *, environment: dict[str, str] | None = None) -> str:
    """Run a tool and return its output; its failure is an ImageError with its first error message.

    It has its own process group, because mmdebstrap sends SIGHUP to its whole group when it fails.
    """
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    source = os.environ if environment is None else environment
    # settings of this machine's Python would be those of the Python that works inside an image, too
    own = {name: value for name, value in source.items() if not name.startswith("PYTHON")}
    environment = {**own, "PATH": path, "LC_ALL": "C.UTF-8"}
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            errors="replace",
            process_group=0,
        )
    except FileNotFoundError as error:
        raise ImageError(f"{command[0]} is missing: run `{hints.command('bootstrap')}`") from error
    try:
        output, errors_output = process.communicate()
    except BaseException:
        _end(process)
        raise
    if process.returncode != 0:
        lines = [line for line in (errors_output + output).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith(("E:", "error", "ERROR"))] or lines or ["no message"]
        message = next((line for line in lines if "No space left" in line), errors[0])
        raise ImageError(f"{what} failed: {message.strip()}")
    return output
