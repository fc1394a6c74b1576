"""The cache of images: whole or not there, shared by runs."""

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

from kernel_matrix.shared import hints, marker
from kernel_matrix.shared.errors import ImageError, ignoring, reraise

#: what no run has used for so long, `prune` deletes
UNUSED_DAYS = 30
#: where images lie in the cache
_KINDS = ("kernels", "roots")
#: a tool that is told to end has so long to delete what it made
_SECONDS_TO_CLEAN_UP = 5.0


def cache_dir() -> Path:
    """Return the cache's folder: KERNEL_MATRIX_CACHE, or the user's cache folder."""
    setting = os.environ.get("KERNEL_MATRIX_CACHE")
    return Path(setting).absolute() if setting else user_cache_path("kernel-matrix")


def digest(parts: Iterable[bytes | str]) -> str:
    """Return 16 hexadecimal digits that change when any part does."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "big") + data)
    return state.hexdigest()[:16]


@contextlib.contextmanager
def locked(name: str) -> Iterator[Path]:
    """Hold the cache's lock of that name; yields the cache's folder."""
    folder = cache_dir()
    with disk_errors(folder):
        (folder / "locks").mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "locks" / f"{name}.lock"):
        yield folder


@contextlib.contextmanager
def building(target: Path) -> Iterator[Path]:
    """Yield a fresh folder that becomes ``target`` when the block ends well, and is gone otherwise."""
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".building-", dir=target.parent))
        try:
            marker.mark(folder)
            yield folder
            folder.chmod(0o755)
            folder.rename(target)
        except BaseException:
            # what stays is less than why it was not made, and `prune` deletes it
            with contextlib.suppress(OSError):
                remove(folder)
            raise


@contextlib.contextmanager
def working(prefix: str, folder: Path) -> Iterator[Path]:
    """Yield a fresh folder below ``folder`` that is gone after the block; what a killed run leaves of it is pruned."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder) as name:
        place = Path(name)
        marker.mark(place)
        yield place


def used(folder: Path) -> None:
    """Note that a run uses an image, if it is there; a cache that may only be read stays as it is.

    An image of a version before the marker becomes the harness's own by that: its name is that of its content.
    """
    with ignoring(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS):
        if not marker.marked(folder):
            marker.mark(folder)
        os.utime(folder)


def prune(days: float = UNUSED_DAYS) -> list[Path]:
    """Delete the images that no run has used for so many days, and what killed runs left half-made; return them.

    Of what lies there only what carries the marker. Guests that run go on: their files are open.
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
    """Turn a failure of the disk into one line."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise ImageError(f"no space left for images in {where.parent} ({error.strerror})") from error
        raise ImageError(f"{error.filename or where}: {error.strerror or error}") from error


def remove(folder: Path) -> None:
    """Delete a folder, read-only parts of it included."""
    for path, folders, _ in os.walk(folder, onerror=reraise):
        for name in folders:
            # a link may lead out of it: a root has /var/run -> /run
            if not (Path(path) / name).is_symlink():
                (Path(path) / name).chmod(0o700)
    shutil.rmtree(folder)


def _end(process: subprocess.Popen[str]) -> None:
    """End a tool's group, which Ctrl-C did not reach: first so that it can clean up."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_SECONDS_TO_CLEAN_UP)


def run(command: list[str], what: str, *, environment: dict[str, str] | None = None) -> str:
    """Run a tool and return what it prints; its failure is an ImageError with its last line.

    In a process group of its own: mmdebstrap ends by SIGHUP to its whole group when it fails.
    """
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    environment = {**(environment if environment is not None else os.environ), "PATH": path, "LC_ALL": "C.UTF-8"}
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
        full = next((line for line in lines if "No space left" in line), errors[0])
        raise ImageError(f"{what} failed: {full.strip()}")
    return output
