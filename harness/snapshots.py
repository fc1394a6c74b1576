"""Saved guests: a booted kernel with its agent ready, restored instead of booted again.

A snapshot is a folder in the cache with ``ram`` (the guest's memory, sparse, mapped privately by every guest restored
from it), ``state`` (the devices, as QEMU's migration stream), ``answer`` (what a worker has said) and
``snapshot.json``. Its name, a key, covers everything the state depends on; that of a worker begins with the key of the
guest it was made from. A folder is made beside its place and renamed, and never changed afterwards.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from harness import wire
from harness.vm import GuestSpec, Memory, Sockets, vng_command

#: part of every key: what this project does before it saves
_FORMAT = "2"
#: bytes on disk that snapshots may hold; the least recently used go first. A guest holds a fifth of a GB and its
#: worker as much again: the kernels, thirteen with and without a worker each, and some command lines of tests' own
LIMIT = 8 << 30
#: seconds after which a folder that is being made is one that a killed run has left: no boot takes as long
_ABANDONED = 86400.0
_META = "snapshot.json"
_BLOCK = 1 << 16
#: of a digest in a name
_DIGITS = 16
_UNUSABLE = ".unusable"
_LAST = ".last"
_FILES = ("state", "answer", "ram")


@dataclass(frozen=True, slots=True)
class Hello:
    """What the agent said before it was saved."""

    #: ``uname -r``
    release: str
    #: of the agent's speed probe
    seconds: float


@dataclass(frozen=True, slots=True)
class Meta:
    """The content of snapshot.json."""

    kernel: str
    hello: Hello
    #: sha256 of the other files
    digest: str
    #: whether a worker was saved
    worker: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A saved guest, whole and verified."""

    folder: Path
    meta: Meta

    @property
    def ram(self) -> Path:
        """The guest's memory."""
        return self.folder / "ram"

    @property
    def state(self) -> Path:
        """The devices' state."""
        return self.folder / "state"

    @property
    def answer(self) -> bytes | None:
        """What the worker has said that was saved; None when there was no worker yet."""
        return (self.folder / "answer").read_bytes() if self.meta.worker else None


def key(spec: GuestSpec, machine: str) -> str:
    """Return the name of the snapshot of such a guest.

    ``machine`` describes QEMU and, where the state depends on it, the host's processor. Kernel, modules and root image
    lie in folders named by their content; the agent, the guest's Python and virtme-ng's guest tools are in the root.
    """
    memory = Memory(Path("ram"), Path("qmp"), share=True, incoming=False)
    sockets = Sockets.below(Path("sockets"))
    command = vng_command(spec, sockets=sockets, pidfile=Path("pid"), memory=memory)
    parts = [_FORMAT, machine, *command[1:]]
    state = hashlib.sha256()
    for part in parts:
        state.update(part.encode() + b"\0")
    return state.hexdigest()[:_DIGITS]


def worker_name(key: str, opening: bytes, kind: str = "") -> str:
    """Return the name of the snapshot of a worker: that guest's, told all this."""
    return f"{key}+{kind}{hashlib.sha256(opening).hexdigest()[:_DIGITS]}"


def asked_before(folder: Path, name: str, run: str) -> bool:
    """Whether the last run that asked for a worker of that guest and kind, another than this, asked for the same."""
    path = folder / f"{name[:-_DIGITS]}{_LAST}"
    with contextlib.suppress(OSError, ValueError):
        last_name, last_run = path.read_text().splitlines()
        if last_name == name:
            return last_run != run
    with contextlib.suppress(OSError):
        path.write_text(f"{name}\n{run}\n")
    return False


def find(folder: Path, name: str) -> Snapshot | None:
    """Return the snapshot of that key, None when there is none or what is there is not what was saved."""
    place = folder / name
    try:
        snapshot = Snapshot(place, wire.decode((place / _META).read_bytes(), Meta))
        if not _verified(snapshot):
            discard(folder, name)
            return None
        os.utime(place / _META)
    except (OSError, msgspec.MsgspecError):
        discard(folder, name)
        return None
    return snapshot


def unusable(folder: Path, name: str) -> str | None:
    """Return why a guest of that key cannot be saved or restored here, if that was found out."""
    try:
        return (folder / f"{name}{_UNUSABLE}").read_text()
    except OSError:
        return None


def mark_unusable(folder: Path, name: str, why: str) -> None:
    """Remember why a guest of that key cannot be saved or restored, so that no run tries again."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}{_UNUSABLE}").write_text(why)


@contextlib.contextmanager
def making(folder: Path, name: str) -> Iterator[Path]:
    """Yield a fresh folder for a snapshot's files; it is gone after the block unless `keep` has been called."""
    folder.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def keep(place: Path, name: str, *, kernel: str, hello: Hello, answer: bytes | None = None) -> None:
    """Let a folder of `making` become the snapshot of that key; a guest keeps one worker of each kind, the last."""
    (place / "answer").write_bytes(answer or b"")
    _dig_holes(place / "ram")
    meta = Meta(kernel, hello, _digest(place), worker=answer is not None)
    wire.write(place / _META, meta)
    _mark_verified(place)
    place.rename(place.parent / name)
    base, plus, _ = name.partition("+")
    for other in place.parent.glob(f"{base}+*/") if plus else ():
        if other.name != name and other.name[:-_DIGITS] == name[:-_DIGITS]:
            discard(place.parent, other.name)


def discard(folder: Path, name: str) -> None:
    """Take a snapshot away; guests restored from it go on, because its files are open."""
    place = folder / name
    if place.exists():
        with contextlib.suppress(OSError):
            gone = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder))
            place.rename(gone / name)
            shutil.rmtree(gone, ignore_errors=True)


def held(folder: Path) -> tuple[tuple[Path, int], ...]:
    """Return the snapshots and their bytes on disk, the least recently used first."""
    found = sorted(folder.glob(f"*/{_META}"), key=_used)
    return tuple((path.parent, _size(path.parent)) for path in found)


def contents(folder: Path) -> frozenset[str]:
    """Return the names of what is there, and which workers were asked for last: a warm run changes none of it."""
    found = {place.name for place in folder.glob("*/")}
    for path in folder.glob(f"*{_LAST}"):
        with contextlib.suppress(OSError):
            found.add(path.read_text())
    return frozenset(found)


def describe(folder: Path) -> str:
    """Say in a few words what the cache of saved guests holds."""
    sizes = [size for _, size in held(folder)]
    return f"{len(sizes)} saved guests hold {sum(sizes) / 1e9:.1f} GB"


def prune(folder: Path, limit: int = LIMIT) -> list[Path]:
    """Delete the least recently used snapshots until the others fit into ``limit`` bytes; return the deleted.

    What killed runs have left half-made goes too.
    """
    for place in folder.glob(".*-*/"):
        with contextlib.suppress(OSError):
            if place.stat().st_mtime < time.time() - _ABANDONED:
                shutil.rmtree(place, ignore_errors=True)
    snapshots = held(folder)
    total = sum(size for _, size in snapshots)
    deleted = []
    for place, size in snapshots:
        if total <= limit:
            break
        discard(folder, place.name)
        deleted.append(place)
        total -= size
    return deleted


def _size(place: Path) -> int:
    """Return the bytes that a saved guest takes; none when another run has just deleted it."""
    with contextlib.suppress(FileNotFoundError):
        return sum(file.stat().st_blocks * 512 for file in place.iterdir())
    return 0


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _dig_holes(path: Path) -> None:
    """Give back the blocks of a file that hold only zeros, a sixth of a guest's memory; some file systems cannot."""
    with contextlib.suppress(FileNotFoundError):
        subprocess.run(["fallocate", "--dig-holes", str(path)], stderr=subprocess.DEVNULL, check=False)


def _digest(place: Path) -> str:
    """Return the sha256 of sizes and contents; blocks of zeros count as holes, wherever the file system has some."""
    state = hashlib.sha256()
    for name in _FILES:
        with (place / name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            state.update(f"{name} {size}\n".encode())
            for start in _blocks(file.fileno(), size):
                block = os.pread(file.fileno(), _BLOCK, start)
                if block.strip(b"\0"):
                    state.update(start.to_bytes(8, "big") + block)
    return state.hexdigest()


def _blocks(descriptor: int, size: int) -> Iterator[int]:
    """Yield where the blocks of a sparse file start that are not wholly holes."""
    start = 0
    while start < size:
        try:
            data = os.lseek(descriptor, start, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        start = max(start, data // _BLOCK * _BLOCK)
        yield start
        start += _BLOCK


def _stamp(place: Path) -> str:
    stats = [(place / name).stat() for name in _FILES]
    # what a machine's crash leaves of a file is not what was written: every start of the machine looks again
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return " ".join([boot, *[f"{each.st_ino}:{each.st_size}:{each.st_mtime_ns}" for each in stats]])


def _mark_verified(place: Path) -> None:
    (place / "verified").write_text(_stamp(place))


def _verified(snapshot: Snapshot) -> bool:
    """Whether the files are those that were saved: by their digest once, then by their inodes and times."""
    with contextlib.suppress(OSError):
        if (snapshot.folder / "verified").read_text() == _stamp(snapshot.folder):
            return True
    if _digest(snapshot.folder) != snapshot.meta.digest:
        return False
    _mark_verified(snapshot.folder)
    return True
