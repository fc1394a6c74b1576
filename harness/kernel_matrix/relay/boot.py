"""Start the guest of a job: boot it through virtme-ng, or restore it from a snapshot.

The first use of a kernel boots it, saves it when its agent is ready, and restores that snapshot; later uses restore.
When runs repeat the same preamble, the worker is saved too, after it has collected, and later runs restore that.
A saved guest never continues on its own snapshot: its memory file would change under the snapshot.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from kernel_matrix.relay import hang
from kernel_matrix.relay.job import Job
from kernel_matrix.relay.machine import BootError, Machine, Tick
from kernel_matrix.relay.saved import memory_files, qemu_command, snapshots
from kernel_matrix.relay.saved.snapshots import Hello, Snapshot
from kernel_matrix.shared.errors import of_system
from kernel_matrix.vm import boot_spec
from kernel_matrix.vm.process_guard import GuardedGroup
from kernel_matrix.vm.qmp import QmpError, QmpRefused

#: seconds from QEMU's start until a restored guest answers: below one on an idle machine under emulation
_RESTORE_TIMEOUT = 30.0
#: seconds from QEMU's start until the worker of a restored guest has collected
_COLLECT_TIMEOUT = 120.0
#: the start of a prepared guest's kind, which is part of its snapshot's name
_PREPARED = "prepared-"
#: MiB that stay free on the disk when a guest is saved
_SPARE_MIB = 64
#: seconds between two attempts to take a lock
_TICK = 0.02


@dataclass(frozen=True, slots=True)
class Preamble:
    """The parts of what a guest receives before its worker collects: they name the worker that is saved behind them."""

    #: the files that all tests of the project share, imported before the tests are sent; None: no such import
    prepare: bytes | None
    #: the same files, imported together with the tests
    shared: bytes
    #: what follows either of them
    rest: bytes


@dataclass(frozen=True, slots=True)
class Running:
    """A guest that is ready: its agent waits for the preamble, or its worker has answered the preamble."""

    group: GuardedGroup
    channel: socket.socket
    #: holds its sockets
    folder: Path
    hello: Hello
    #: seconds of its speed probe when it woke
    probe: float
    #: since QEMU's start
    seconds: float
    #: "cold" or "restored"
    how: str
    #: a remark for the user; empty when nothing unusual happened
    note: str = ""
    #: the worker's answer to the preamble; None: the preamble was not sent
    answer: bytes | None = None
    #: whether it has imported what all tests of the project share
    prepared: bool = False


class Boots:
    """Starts the guests of one job; `stop` kills the one that was started last."""

    def __init__(self, job: Job, folder: Path, tick: Tick) -> None:
        self._job = job
        self._folder = folder
        self._tick = tick
        self._machine: Machine | None = None
        self._count = 0

    def start(self, preamble: Preamble | None = None) -> Running:
        """Return a guest that is ready; raises BootError. Its worker may have answered ``preamble`` already."""
        if self._job.snapshot is None:
            return self._cold("")
        folder, key = self._job.snapshot
        note, proven = "", False
        for _ in range(2):
            if why := snapshots.unusable(folder, key):
                return self._cold(f"no snapshot: {why}")
            try:
                snapshot = self._find_or_save(key, self._save)
            except QmpError as error:
                self.stop()
                self._unusable(str(error), proven=isinstance(error, QmpRefused))
                continue
            except OSError as error:  # the disk is full or not writable; that may change, so it is not remembered
                self.stop()
                return self._cold(f"no snapshot: {error.filename or folder}: {error.strerror}")
            start = snapshot
            if preamble is not None:
                name = self._worker_name(key, preamble)
                if snapshots.find(folder, name) is None:
                    start, note = self._prepared(snapshot, preamble, note)
                worker = self._worker(name, snapshot, start, preamble, note)
                if isinstance(worker, Running):
                    return worker
                note = worker
            try:
                return self._restored(start, note)
            except (QmpError, BootError) as error:
                self.stop()
                snapshots.discard(folder, key)
                note, proven = f"the snapshot was made again: {error}", isinstance(error, QmpRefused)
        self._unusable(note, proven=proven)
        return self._cold(f"no snapshot: {note}")

    def doing(self, slowness: float) -> str:
        """Return what the silent guest, the one that was started last, is doing."""
        assert self._machine is not None
        return hang.examine(self._machine, self._job.console, slowness, self._tick)

    def stop(self) -> None:
        """Kill the guest that was started last."""
        if self._machine is not None:
            self._machine.kill()
            self._machine = None

    # -- snapshots

    def _unusable(self, why: str, *, proven: bool) -> None:
        assert self._job.snapshot is not None
        snapshots.mark_unusable(*self._job.snapshot, why, kernel=self._job.kernel, proven=proven)

    def _find_or_save(self, name: str, save: Callable[[Path, str], None]) -> Snapshot:
        """Return the snapshot of that name, and save it first if it is missing.

        Raises BootError, QmpError and OSError.
        """
        assert self._job.snapshot is not None
        folder = self._job.snapshot[0]
        if snapshot := snapshots.find(folder, name):
            return snapshot
        # a guest and its workers share one lock, because workers are replaced often
        with self._locked(folder / f"{name.partition('+')[0]}.lock"):
            if snapshot := snapshots.find(folder, name):
                return snapshot
            # SIGBUS kills a guest whose memory file cannot grow
            if shutil.disk_usage(folder).free < (self._job.boot.memory_mib + _SPARE_MIB) << 20:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
            with snapshots.making(folder, name) as place:
                save(place, name)
            snapshot = snapshots.find(folder, name)
            if snapshot is None:
                raise BootError("the snapshot was taken away as soon as it was made")
            snapshots.prune(folder)
            return snapshot

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        # a relay that finds its snapshot locks nothing
        from filelock import FileLock, Timeout

        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        while True:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                self._tick(_TICK)
            else:
                break
        try:
            yield
        finally:
            lock.release()

    def _save(self, place: Path, name: str) -> None:
        machine = self._started(self._job.boot_timeout, place / "ram", share=True, incoming=False)
        hello = machine.hello()
        machine.save(place / "state")
        self.stop()
        snapshots.keep(place, name, kernel=self._job.kernel, hello=hello)

    def _worker_name(self, key: str, preamble: Preamble) -> str:
        return snapshots.worker_name(key, preamble.shared + preamble.rest, self._job.worker_kind)

    def _prepared(self, base: Snapshot, preamble: Preamble, note: str) -> tuple[Snapshot, str]:
        """Return the snapshot that has imported what all tests share, or ``base`` when there is none, and the note.

        It is saved only when two runs in a row need the same one. Otherwise a user who edits the shared files would
        wait for a new snapshot in every run.
        """
        assert self._job.snapshot is not None
        if preamble.prepare is None:
            return base, note
        folder, key = self._job.snapshot
        data = preamble.prepare
        name = snapshots.worker_name(key, data, _PREPARED)
        if prepared := snapshots.find(folder, name):
            return prepared, note
        requested = snapshots.asked_before(folder, name, str(self._job.console.parent))
        if self._job.worker != "again" or not requested:
            return base, note
        try:
            return self._find_or_save(name, lambda place, name: self._save_prepared(base, data, place, name)), note
        except (QmpError, BootError, OSError) as error:
            self.stop()
            why = of_system(error) if isinstance(error, OSError) else error
            return base, f"no guest is prepared for the project: {why}"

    def _worker(self, name: str, base: Snapshot, start: Snapshot, preamble: Preamble, note: str) -> Running | str:
        """Return a guest whose worker has answered the preamble, or the note when no worker is saved or to be saved.

        The worker is saved from ``start``, which is ``base`` or a prepared guest. When saving fails, the reason is
        the note, and the caller uses the guest without a saved worker.
        """
        assert self._job.snapshot is not None
        folder = self._job.snapshot[0]
        if snapshots.find(folder, name) is None and not (
            self._job.worker == "always" or snapshots.asked_before(folder, name, str(self._job.console.parent))
        ):
            return note
        try:
            data = (b"" if start.prepared else preamble.shared) + preamble.rest
            snapshot = self._find_or_save(name, lambda place, name: self._save_worker(base, start, data, place, name))
            return self._restored(snapshot, note)
        except PermissionError as error:
            # usually for QEMU's memory: the machine's policy refuses it, and the snapshot itself is good
            self.stop()
            return f"no saved worker: {error.filename}: {error.strerror}"
        except (QmpError, BootError, OSError) as error:
            self.stop()
            snapshots.discard(folder, name)
            return f"no saved worker: {of_system(error) if isinstance(error, OSError) else error}"

    def _save_prepared(self, base: Snapshot, data: bytes, place: Path, name: str) -> None:
        machine = self._resume_copy(base, base, place)
        machine.prepare(data)
        machine.save(place / "state")
        self.stop()
        snapshots.keep_worker(place, name, base, b"")

    def _save_worker(self, base: Snapshot, start: Snapshot, data: bytes, place: Path, name: str) -> None:
        machine = self._resume_copy(base, start, place)
        answer = machine.open(data)
        answer += machine.save(place / "state")
        self.stop()
        snapshots.keep_worker(place, name, base, answer)

    def _resume_copy(self, base: Snapshot, start: Snapshot, place: Path) -> Machine:
        """Resume a copy of a saved guest that writes to its own memory file, so that it can be saved again."""
        copy = ["cp", "--sparse=auto", "--reflink=auto", str(base.ram), str(place / "ram")]
        copied = subprocess.run(copy, capture_output=True, text=True, check=False)
        if copied.returncode:
            raise OSError(errno.EIO, copied.stderr.strip(), str(place))
        if start.changes is not None:
            memory_files.apply_changes(start.changes, place / "ram")
        machine = self._started(_COLLECT_TIMEOUT, place / "ram", share=True, incoming=True)
        machine.resume(start.state)
        machine.wake()
        return machine

    # -- guests

    def _restored(self, snapshot: Snapshot, note: str) -> Running:
        machine = self._started(_RESTORE_TIMEOUT, snapshot.ram, share=False, incoming=True)
        machine.resume(snapshot.state, snapshot.changes)
        running = self._running(machine, snapshot.meta.hello, "restored", note)
        if machine.by_virtme_ng:
            qemu_command.keep(snapshot.ram.parent, machine.folder)
        return replace(running, answer=snapshot.answer, prepared=snapshot.prepared)

    def _cold(self, note: str) -> Running:
        machine = self._started(self._job.boot_timeout)
        return self._running(machine, machine.hello(), "cold", note)

    def _started(
        self, seconds: float, ram: Path | None = None, *, share: bool = False, incoming: bool = False
    ) -> Machine:
        folder = self._folder / str(self._count)
        folder.mkdir()
        self._count += 1
        memory = None if ram is None else boot_spec.Memory(ram, share=share, incoming=incoming)
        command = qemu_command.recall(ram.parent, folder) if ram is not None and incoming and not share else None
        self._machine = Machine(self._job, folder, self._tick, seconds=seconds, memory=memory, command=command)
        return self._machine

    def _running(self, machine: Machine, hello: Hello, how: str, note: str) -> Running:
        """Wake a guest and return it."""
        probe = machine.wake()
        seconds = time.monotonic() - machine.began
        return Running(machine.group, machine.channel, machine.folder, hello, probe, seconds, how, note)
