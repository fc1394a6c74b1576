"""Saved guests: a booted kernel with its agent ready, restored instead of booted again.

A snapshot is a folder in the cache with ``ram`` (the guest's memory, sparse, mapped privately by every guest restored
from it), ``state`` (the devices, as QEMU's migration stream) and ``snapshot.json``. Its name, a key, covers everything
the state depends on. A worker's name begins with the key of the guest it was made from; it has ``answer`` (what it has
said; nothing where it is prepared and waits for tests), and of the memory only what it has changed of that guest's
(`kernel_matrix.relay.memory_files`), without which it is nothing.
A folder is made beside its place and renamed, and never changed afterwards.
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

from kernel_matrix.relay import memory_files
from kernel_matrix.shared import atomic, conclusions, marker, wire
from kernel_matrix.shared.conclusions import Conclusion
from kernel_matrix.shared.errors import passing_over
from kernel_matrix.vm.boot_spec import BootSpec, Memory, Sockets, vng_command

#: part of every key: what this project does before it saves
_FORMAT = "3"
#: bytes on disk that snapshots may hold; the least recently used go first. A guest holds a fifth of a GB and its
#: worker a fifth of that: thirteen kernels take 3 GB, the command lines of tests' own more than as much
LIMIT = 8 << 30
#: seconds after which a folder that is being made is one that a killed run has left: no boot takes as long
_ABANDONED = 86400.0
_META = "snapshot.json"
#: of a digest in a name
_DIGITS = 16
_UNUSABLE = ".unusable"
_LAST = ".last"
_FILES = ("state", "ram")
#: of a cache that may only be read, or has no room: it is used as it is
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
_FILES_OF_WORKER = ("state", "answer", *memory_files.CHANGES)


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
    #: of a worker: the digest of the guest that it was made from
    base: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A saved guest, whole and verified."""

    folder: Path
    meta: Meta

    @property
    def ram(self) -> Path:
        """The guest's memory; of a worker, that of the guest that it was made from."""
        return _base(self.folder) / "ram"

    @property
    def changes(self) -> Path | None:
        """Where a worker's changes of that memory are (`relay.memory_files`); None when there is no worker."""
        return self.folder if self.meta.base else None

    @property
    def state(self) -> Path:
        """The devices' state."""
        return self.folder / "state"

    @property
    def answer(self) -> bytes | None:
        """What the worker has said that was saved; None when there was no worker yet."""
        return ((self.folder / "answer").read_bytes() or None) if self.meta.base else None

    @property
    def prepared(self) -> bool:
        """Whether it waits for the tests of a project whose shared modules it has imported."""
        return bool(self.meta.base) and self.answer is None


def key(spec: BootSpec, machine: str) -> str:
    """Return the name of the snapshot of such a guest.

    ``machine`` describes QEMU and, where the state depends on it, the host's processor. Kernel, modules and root image
    lie in folders named by their content; the agent, the guest's Python and virtme-ng's guest tools are in the root.
    """
    memory = Memory(Path("ram"), share=True, incoming=False)
    sockets = Sockets.below(Path("sockets"))
    command = vng_command(spec, Path("vng"), sockets=sockets, pidfile=Path("pid"), memory=memory)
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
    with contextlib.suppress(FileNotFoundError, ValueError):
        last_name, last_run = path.read_text().splitlines()
        if last_name == name:
            return last_run != run
    with passing_over(*_UNWRITABLE):
        atomic.write(path, f"{name}\n{run}\n")
    return False


def find(folder: Path, name: str) -> Snapshot | None:
    """Return the snapshot of that key, None when there is none or what is there is not what was saved.

    A worker is what was saved with the guest that it was made from, which is looked at before.
    """
    place = folder / name
    try:
        snapshot = Snapshot(place, _meta(place))
        if not _verified(snapshot) or (snapshot.meta.base and snapshot.meta.base != _meta(_base(place)).digest):
            discard(folder, name)
            return None
        with passing_over(*_UNWRITABLE):
            os.utime(place / _META)
    except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
        discard(folder, name)
        return None
    if not marker.marked(place):
        # of a version before the marker; its content has proved whose it is
        with passing_over(*_UNWRITABLE):
            marker.mark(place)
    return snapshot


def unusable(folder: Path, name: str) -> str | None:
    """Return why a guest of that key cannot be saved or restored here, if that was found out and counts."""
    found = conclusions.recall(_conclusion(folder, name))
    return None if found is None else found.why


def mark_unusable(folder: Path, name: str, why: str, *, kernel: str = "", proven: bool = False) -> None:
    """Remember why a guest of that key cannot be saved or restored; ``proven``: QEMU itself has refused it."""
    with passing_over(*_UNWRITABLE):
        about = f"saving {kernel or name}"
        conclusions.remember(_conclusion(folder, name), Conclusion(about, why, works=False, proven=proven))


def ask_again(folder: Path, name: str) -> None:
    """Try to save and restore a guest of that key again, unless QEMU itself has refused it; raises OSError."""
    conclusions.ask_again(_conclusion(folder, name))


def _conclusion(folder: Path, name: str) -> Path:
    return folder / f"{name}{_UNUSABLE}"


@contextlib.contextmanager
def making(folder: Path, name: str) -> Iterator[Path]:
    """Yield a fresh folder for a snapshot's files; it is gone after the block unless it has been kept."""
    folder.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder))
    try:
        marker.mark(place)
        yield place
    finally:
        if place.exists():
            marker.remove(place)


def keep(place: Path, name: str, *, kernel: str, hello: Hello) -> None:
    """Let a folder of `making` become the snapshot of that key."""
    memory_files.dig_holes(place / "ram")
    _keep(place, name, Meta(kernel, hello, _digest(place, _FILES)))


def keep_worker(place: Path, name: str, base: Snapshot, answer: bytes) -> None:
    """Let a folder of `making` become a worker of that guest, which keeps one of each kind, the last."""
    (place / "answer").write_bytes(answer)
    memory_files.keep_changes(base.ram, place / "ram", place)
    (place / "ram").unlink()
    digest = _digest(place, _FILES_OF_WORKER)
    _keep(place, name, Meta(base.meta.kernel, base.meta.hello, digest, base.meta.digest))
    for other in _workers(base.folder):
        if other.name != name and other.name[:-_DIGITS] == name[:-_DIGITS]:
            discard(place.parent, other.name)


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
    """Return the place of the guest that a worker was made from, or that the place itself is of."""
    return place.with_name(place.name.partition("+")[0])


def _workers(place: Path) -> Iterator[Path]:
    """Return the places of a guest's workers; a worker has none."""
    return place.parent.glob(f"{place.name}+*/")


def discard(folder: Path, name: str) -> None:
    """Take a snapshot away, and a guest's workers with it; guests restored go on, because their files are open.

    A folder without the marker stays, whatever its name.
    """
    place = folder / name
    for worker in _workers(place):
        discard(folder, worker.name)
    if marker.marked(place):
        with passing_over(errno.ENOENT, *_UNWRITABLE):
            gone = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder))
            marker.mark(gone)
            place.rename(gone / name)
            marker.remove(gone)


def held(folder: Path) -> tuple[tuple[Path, int], ...]:
    """Return the snapshots and their bytes on disk, the least recently used first."""
    found = sorted(folder.glob(f"*/{_META}"), key=_used)
    return tuple((path.parent, _size(path.parent)) for path in found)


def contents(folder: Path) -> frozenset[str]:
    """Return the names of what is there, and which workers were asked for last: a warm run changes none of it."""
    found = {place.name for place in folder.glob("*/")}
    for path in folder.glob(f"*{_LAST}"):
        with contextlib.suppress(FileNotFoundError):
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
        with contextlib.suppress(FileNotFoundError):  # another run was faster
            if marker.marked(place) and place.stat().st_mtime < time.time() - _ABANDONED:
                marker.remove(place)
    left = {place: size for place, size in held(folder) if marker.marked(place)}
    deleted: list[Path] = []
    while sum(left.values()) > limit:
        oldest = next(iter(left))
        discard(folder, oldest.name)
        # a guest takes its workers with it
        gone = [place for place in left if oldest in {place, _base(place)}]
        deleted += gone
        for place in gone:
            del left[place]
    return deleted


def _size(place: Path) -> int:
    """Return the bytes that a saved guest takes; none when another run has just deleted it."""
    with contextlib.suppress(FileNotFoundError):
        return sum(file.stat().st_blocks * 512 for file in place.iterdir())
    return 0


def _used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _digest(place: Path, names: Iterable[str]) -> str:
    """Return the sha256 of sizes and contents; blocks of zeros count as holes, wherever the file system has some."""
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
    # what a machine's crash leaves of a file is not what was written: every start of the machine looks again
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return " ".join([boot, *[f"{each.st_ino}:{each.st_size}:{each.st_mtime_ns}" for each in stats]])


def _mark_verified(snapshot: Snapshot) -> None:
    atomic.write(snapshot.folder / "verified", _stamp(snapshot))


def _verified(snapshot: Snapshot) -> bool:
    """Whether the files are those that were saved: by their digest once, then by their inodes and times."""
    with contextlib.suppress(FileNotFoundError):
        if (snapshot.folder / "verified").read_text() == _stamp(snapshot):
            return True
    if _digest(snapshot.folder, _files(snapshot)) != snapshot.meta.digest:
        return False
    _mark_verified(snapshot)
    return True
