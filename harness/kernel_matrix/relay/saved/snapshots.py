"""Saved guests: a booted kernel with its agent ready, which is restored instead of booted again.

A snapshot is a folder in the cache with ``ram`` (the guest's memory, sparse, mapped privately by every guest restored
from it), ``state`` (the devices, as QEMU's migration stream) and ``snapshot.json``. Its name, a key, covers everything
the state depends on.

The name of a worker's snapshot begins with the key of its guest. It has ``answer`` (the worker's answer to the
preamble; empty for a prepared guest that waits for tests), and in place of the memory the pages that differ from the
guest's (`kernel_matrix.relay.saved.memory_files`); it is unusable without the guest's snapshot.

A folder is created under a temporary name, renamed when it is complete, and never changed afterwards, but for a guest's
QEMU command, which is added by the first that is restored (`kernel_matrix.relay.saved.qemu_command`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kernel_matrix.relay.saved import memory_files
from kernel_matrix.shared import atomic, conclusions, marker, wire
from kernel_matrix.shared.conclusions import Conclusion
from kernel_matrix.shared.errors import ignoring
from kernel_matrix.vm.boot_spec import BootSpec, Memory, Sockets, vng_command

#: part of every key: the version of what is done before a guest is saved
_FORMAT = "3"
#: bytes on disk that snapshots may use; the least recently used are deleted first. A guest uses a fifth of a GB and its
#: worker a fifth of that: thirteen kernels use 3 GB, and the kernel command lines of single tests more than that
LIMIT = 8 << 30
#: seconds after which an incomplete folder is one that a killed run has left: no boot takes as long
_ABANDONED = 86400.0
_META = "snapshot.json"
#: hexadecimal digits of a digest in a name
_DIGITS = 16
_UNUSABLE = ".unusable"
_LAST = ".last"
_FILES = ("state", "ram")
#: errors of a cache that is read-only or full; it is used without changes
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
_FILES_OF_WORKER = ("state", "answer", *memory_files.CHANGES)


@dataclass(frozen=True, slots=True)
class Hello:
    """The agent's greeting, sent before the guest was saved."""

    #: ``uname -r``
    release: str


@dataclass(frozen=True, slots=True)
class Meta:
    """The content of snapshot.json."""

    kernel: str
    hello: Hello
    #: sha256 of the other files
    digest: str
    #: the digest of the guest that a worker was saved from; empty for a guest
    base: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A saved guest, complete and verified."""

    folder: Path
    meta: Meta

    @property
    def ram(self) -> Path:
        """The guest's memory; for a worker, that of the guest that it was saved from."""
        return _base(self.folder) / "ram"

    @property
    def changes(self) -> Path | None:
        """The folder with a worker's changes of that memory (`memory_files`); None for a guest without worker."""
        return self.folder if self.meta.base else None

    @property
    def state(self) -> Path:
        """The devices' state."""
        return self.folder / "state"

    @property
    def answer(self) -> bytes | None:
        """What the saved worker has sent; None when there was no worker yet."""
        return ((self.folder / "answer").read_bytes() or None) if self.meta.base else None

    @property
    def prepared(self) -> bool:
        """Whether it has imported the shared modules of a project and waits for its tests."""
        return bool(self.meta.base) and self.answer is None


def key(spec: BootSpec, machine: str) -> str:
    """Return the name of a guest's snapshot.

    ``machine`` describes QEMU and, where the state depends on it, the host's processor. Kernel, modules and root image
    are in folders named by their content; the agent, the guest's Python and virtme-ng's guest tools are in the root.
    """
    memory = Memory(Path("ram"), share=True, incoming=False)
    sockets = Sockets.below(Path("sockets"))
    command = vng_command(spec, Path("vng"), sockets=sockets, pidfile=Path("pid"), memory=memory)
    parts = [_FORMAT, machine, *command[1:]]
    state = hashlib.sha256()
    for part in parts:
        state.update(part.encode() + b"\0")
    return state.hexdigest()[:_DIGITS]


def worker_name(key: str, data: bytes, kind: str = "") -> str:
    """Return the name of the snapshot of a guest's worker that has received ``data``."""
    return f"{key}+{kind}{hashlib.sha256(data).hexdigest()[:_DIGITS]}"


def asked_before(folder: Path, name: str, run: str) -> bool:
    """Whether the run before this one that wanted a worker of this guest and kind wanted the same one.

    If not, record this run's.
    """
    path = folder / f"{name[:-_DIGITS]}{_LAST}"
    with contextlib.suppress(FileNotFoundError, ValueError):
        last_name, last_run = path.read_text().splitlines()
        if last_name == name:
            return last_run != run
    with ignoring(*_UNWRITABLE):
        atomic.write(path, f"{name}\n{run}\n")
    return False


def find(folder: Path, name: str) -> Snapshot | None:
    """Return the snapshot of that name; None when it is missing, or damaged and therefore discarded.

    A worker is valid only for the guest that it was saved from, whose digest is compared.
    """
    place = folder / name
    try:
        snapshot = Snapshot(place, _meta(place))
        if not _verified(snapshot) or (snapshot.meta.base and snapshot.meta.base != _meta(_base(place)).digest):
            discard(folder, name)
            return None
        with ignoring(*_UNWRITABLE):
            os.utime(place / _META)
    except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
        discard(folder, name)
        return None
    if not marker.marked(place):
        # from a version before the marker; its content proves that it is a snapshot
        with ignoring(*_UNWRITABLE):
            marker.mark(place)
    return snapshot


def unusable(folder: Path, name: str) -> str | None:
    """Return why a guest of that key cannot be saved or restored here; None unless such a conclusion is valid."""
    conclusion = conclusions.recall(_conclusion(folder, name))
    return None if conclusion is None else conclusion.why


def mark_unusable(folder: Path, name: str, why: str, *, kernel: str = "", proven: bool = False) -> None:
    """Remember why a guest of that key cannot be saved or restored; ``proven``: QEMU itself refused it."""
    with ignoring(*_UNWRITABLE):
        about = f"saving {kernel or name}"
        conclusions.remember(_conclusion(folder, name), Conclusion(about, why, works=False, proven=proven))


def ask_again(folder: Path, name: str) -> None:
    """Allow saving and restoring a guest of that key again, unless QEMU itself refused it; raises OSError."""
    conclusions.ask_again(_conclusion(folder, name))


def _conclusion(folder: Path, name: str) -> Path:
    return folder / f"{name}{_UNUSABLE}"


@contextlib.contextmanager
def making(folder: Path, name: str) -> Iterator[Path]:
    """Yield a new folder for a snapshot's files; delete it after the block unless it has been kept."""
    folder.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder))
    try:
        marker.mark(place)
        yield place
    finally:
        if place.exists():
            marker.remove(place)


def keep(place: Path, name: str, *, kernel: str, hello: Hello) -> None:
    """Turn a folder of `making` into the snapshot of that key."""
    memory_files.dig_holes(place / "ram")
    _keep(place, name, Meta(kernel, hello, _digest(place, _FILES)))


def keep_worker(place: Path, name: str, base: Snapshot, answer: bytes) -> None:
    """Turn a folder of `making` into a worker of that guest; delete the guest's older worker of the same kind."""
    (place / "answer").write_bytes(answer)
    memory_files.keep_changes(base.ram, place / "ram", place)
    (place / "ram").unlink()
    digest = _digest(place, _FILES_OF_WORKER)
    _keep(place, name, Meta(base.meta.kernel, base.meta.hello, digest, base.meta.digest))
    for worker in _workers(base.folder):
        if worker.name != name and worker.name[:-_DIGITS] == name[:-_DIGITS]:
            discard(place.parent, worker.name)


def _keep(place: Path, name: str, meta: Meta) -> None:
    wire.write(place / _META, meta)
    _mark_verified(Snapshot(place, meta))
    target = place.parent / name
    if target.exists():
        raise FileExistsError(
            errno.EEXIST, f"it is in the way, and without {marker.NAME} not ours to delete", str(target)
        )
    place.rename(target)


def _meta(place: Path) -> Meta:
    return wire.decode((place / _META).read_bytes(), Meta)


def _base(place: Path) -> Path:
    """Return the folder of the guest that a worker was saved from; a guest's folder is returned itself."""
    return place.with_name(place.name.partition("+")[0])


def _workers(place: Path) -> Iterator[Path]:
    """Return the folders of a guest's workers; a worker has none."""
    return place.parent.glob(f"{place.name}+*/")


def discard(folder: Path, name: str) -> None:
    """Delete a snapshot, and a guest's workers with it; restored guests continue, because their files are open.

    A folder without the marker stays, whatever its name.
    """
    place = folder / name
    for worker in _workers(place):
        discard(folder, worker.name)
    if marker.marked(place):
        with ignoring(errno.ENOENT, *_UNWRITABLE):
            gone = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder))
            marker.mark(gone)
            place.rename(gone / name)
            marker.remove(gone)


def held(folder: Path) -> tuple[tuple[Path, int], ...]:
    """Return each snapshot and its size on disk in bytes, the least recently used first."""
    metas = sorted(folder.glob(f"*/{_META}"), key=_used)
    return tuple((path.parent, _size(path.parent)) for path in metas)


def contents(folder: Path) -> frozenset[str]:
    """Return the names of all snapshots, and which workers were wanted last: a warm run changes none of it."""
    names = {place.name for place in folder.glob("*/")}
    for path in folder.glob(f"*{_LAST}"):
        with contextlib.suppress(FileNotFoundError):
            names.add(path.read_text())
    return frozenset(names)


def describe(folder: Path) -> str:
    """Describe what the cache of saved guests holds."""
    sizes = [size for _, size in held(folder)]
    return f"{len(sizes)} saved guests hold {sum(sizes) / 1e9:.1f} GB"


def prune(folder: Path, limit: int = LIMIT) -> list[Path]:
    """Delete the least recently used snapshots until the rest fits into ``limit`` bytes; return the deleted.

    Incomplete folders of killed runs are deleted too.
    """
    for place in folder.glob(".*-*/"):
        with contextlib.suppress(FileNotFoundError):  # another run was faster
            if marker.marked(place) and place.stat().st_mtime < time.time() - _ABANDONED:
                marker.remove(place)
    left = {place: size for place, size in held(folder) if marker.marked(place)}
    deleted: list[Path] = []
    while sum(left.values()) > limit:
        oldest = next(iter(left))
        discard(folder, oldest.name)
        # its workers were discarded with it
        gone = [place for place in left if oldest in {place, _base(place)}]
        deleted += gone
        for place in gone:
            del left[place]
    return deleted


def _size(place: Path) -> int:
    """Return a saved guest's size on disk in bytes; 0 when another run has just deleted it."""
    with contextlib.suppress(FileNotFoundError):
        return sum(file.stat().st_blocks * 512 for file in place.iterdir())
    return 0


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _digest(place: Path, names: Iterable[str]) -> str:
    """Return the sha256 of sizes and contents; a block of zeros counts as a hole, on any file system."""
    state = hashlib.sha256()
    for name in names:
        with (place / name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            state.update(f"{name} {size}\n".encode())
            for start in memory_files.blocks(file.fileno(), size):
                block = os.pread(file.fileno(), memory_files.BLOCK, start)
                if block.strip(b"\0"):
                    state.update(start.to_bytes(8, "big") + block)
    return state.hexdigest()


def _files(snapshot: Snapshot) -> Iterable[str]:
    return _FILES_OF_WORKER if snapshot.meta.base else _FILES


def _stamp(snapshot: Snapshot) -> str:
    stats = [(snapshot.folder / name).stat() for name in _files(snapshot)]
    # a crash of the machine may damage a file, so files are verified again after stat start of the machine
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return " ".join([boot, *[f"{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}" for stat in stats]])


def _mark_verified(snapshot: Snapshot) -> None:
    atomic.write(snapshot.folder / "verified", _stamp(snapshot))


def _verified(snapshot: Snapshot) -> bool:
    """Whether the files are those that were saved: compare their digest once, then their inodes and times."""
    with contextlib.suppress(FileNotFoundError):
        if (snapshot.folder / "verified").read_text() == _stamp(snapshot):
            return True
    if _digest(snapshot.folder, _files(snapshot)) != snapshot.meta.digest:
        return False
    _mark_verified(snapshot)
    return True
