"""From a Job to a guest that is ready: booted through virtme-ng, or restored from the snapshot of such a boot.

The first use of a kernel boots it, saves it when its agent is ready, and restores that; later uses restore. Where the
same conversation is opened again and again, its worker is saved too, when it has collected, and restored behind that.
What was saved never runs on itself: its memory's file would change under the snapshot.
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

from filelock import FileLock, Timeout

from kernel_matrix.relay import hang, memory_files, snapshots
from kernel_matrix.relay.job import Job
from kernel_matrix.relay.machine import BootError, Machine, Tick
from kernel_matrix.relay.snapshots import Hello, Snapshot
from kernel_matrix.shared.errors import of_system
from kernel_matrix.vm import boot_spec
from kernel_matrix.vm.process_guard import GuardedGroup
from kernel_matrix.vm.qmp import QmpError, QmpRefused

#: seconds from QEMU's start to the answer of a restored guest: below one on an idle machine, emulated
_RESTORE_TIMEOUT = 30.0
#: and until its worker has collected
_COLLECT_TIMEOUT = 120.0
#: of a prepared guest's name
_PREPARED = "prepared-"
#: what a disk keeps free when a guest is saved
_SPARE_MIB = 64
#: how often a lock is tried
_TICK = 0.02


@dataclass(frozen=True, slots=True)
class Preamble:
    """What is said to a guest of that agent before its worker collects."""

    #: what all tests of the project share, to be imported now; None: it is imported with the tests
    prepare: Callable[[Hello], bytes] | None
    #: the same, to be imported with the tests
    shared: Callable[[Hello], bytes]
    #: what comes behind either
    rest: Callable[[Hello], bytes]


@dataclass(frozen=True, slots=True)
class Running:
    """A guest whose agent waits for its preamble, or whose worker has answered it."""

    group: GuardedGroup
    channel: socket.socket
    #: with its sockets
    folder: Path
    hello: Hello
    #: from QEMU's start
    seconds: float
    #: "cold" or "restored"
    how: str
    #: what the user should know, empty when all went as it does
    note: str = ""
    #: what the worker has answered to the preamble; None: it was not opened
    answer: bytes | None = None
    #: whether it has what all tests of the project share
    prepared: bool = False


class Boots:
    """Starts the guests of one job; the one that was started last is killed by `stop`."""

    def __init__(self, job: Job, folder: Path, tick: Tick) -> None:
        self._job = job
        self._folder = folder
        self._tick = tick
        self._machine: Machine | None = None
        self._count = 0

    def start(self, preamble: Preamble | None = None) -> Running:
        """Return a guest that is ready; with an ``preamble`` perhaps one that has answered it. Raises BootError."""
        if self._job.snapshot is None:
            return self._cold("")
        folder, key = self._job.snapshot
        note, proven = "", False
        for _ in range(2):
            if why := snapshots.unusable(folder, key):
                return self._cold(f"no snapshot: {why}")
            try:
                snapshot = self._found_or_made(key, self._save)
            except QmpError as error:
                self.stop()
                self._unusable(str(error), proven=isinstance(error, QmpRefused))
                continue
            except OSError as error:  # the disk is full, or may not be written to: another time it may
                self.stop()
                return self._cold(f"no snapshot: {error.filename or folder}: {error.strerror}")
            start = snapshot
            if preamble is not None:
                name = self._worker_name(key, snapshot.meta.hello, preamble)
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
        """Return what the guest that was started last does, of which nothing has been heard for long."""
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

    def _found_or_made(self, name: str, make: Callable[[Path, str], None]) -> Snapshot:
        """Return the snapshot of that name, made now when there is none; raises BootError, QmpError and OSError."""
        assert self._job.snapshot is not None
        folder = self._job.snapshot[0]
        if found := snapshots.find(folder, name):
            return found
        # a guest and its workers have one lock: workers come and go
        with self._locked(folder / f"{name.partition('+')[0]}.lock"):
            if found := snapshots.find(folder, name):
                return found
            # a guest whose memory's file cannot grow is killed by SIGBUS
            if shutil.disk_usage(folder).free < (self._job.boot.memory_mib + _SPARE_MIB) << 20:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
            with snapshots.making(folder, name) as place:
                make(place, name)
            made = snapshots.find(folder, name)
            if made is None:
                raise BootError("the snapshot was taken away as soon as it was made")
            snapshots.prune(folder)
            return made

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
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

    def _worker_name(self, key: str, hello: Hello, preamble: Preamble) -> str:
        return snapshots.worker_name(key, preamble.shared(hello) + preamble.rest(hello), self._job.worker_kind)

    def _prepared(self, base: Snapshot, preamble: Preamble, note: str) -> tuple[Snapshot, str]:
        """Return the guest that has imported what all tests share, and the note; the guest itself where none has.

        It is made when a run asks for what the run before has asked for, too: whoever changes that, and not a test,
        would wait for it each time.
        """
        assert self._job.snapshot is not None
        if preamble.prepare is None:
            return base, note
        folder, key = self._job.snapshot
        said = preamble.prepare(base.meta.hello)
        name = snapshots.worker_name(key, said, _PREPARED)
        if found := snapshots.find(folder, name):
            return found, note
        asked = snapshots.asked_before(folder, name, str(self._job.console.parent))
        if self._job.worker != "again" or not asked:
            return base, note
        try:
            return self._found_or_made(name, lambda place, name: self._save_prepared(base, said, place, name)), note
        except (QmpError, BootError, OSError) as error:
            self.stop()
            why = of_system(error) if isinstance(error, OSError) else error
            return base, f"no guest is prepared for the project: {why}"

    def _worker(self, name: str, base: Snapshot, start: Snapshot, preamble: Preamble, note: str) -> Running | str:
        """Return a guest whose worker has answered the preamble; when there is none, nor should be, the note.

        It is made from ``start``, the guest itself or a prepared one. Whatever is in the way of saving a worker is the
        note: the caller uses the guest without one.
        """
        assert self._job.snapshot is not None
        folder = self._job.snapshot[0]
        if snapshots.find(folder, name) is None and not (
            self._job.worker == "always" or snapshots.asked_before(folder, name, str(self._job.console.parent))
        ):
            return note
        try:
            hello = base.meta.hello
            said = (b"" if start.prepared else preamble.shared(hello)) + preamble.rest(hello)
            found = self._found_or_made(name, lambda place, name: self._save_worker(base, start, said, place, name))
            return self._restored(found, note)
        except PermissionError as error:
            # mostly of QEMU's memory; that is the machine's rule, and no fault of what was saved
            self.stop()
            return f"no saved worker: {error.filename}: {error.strerror}"
        except (QmpError, BootError, OSError) as error:
            self.stop()
            snapshots.discard(folder, name)
            return f"no saved worker: {of_system(error) if isinstance(error, OSError) else error}"

    def _save_prepared(self, base: Snapshot, said: bytes, place: Path, name: str) -> None:
        machine = self._resumed_shared(base, base, place)
        machine.prepare(said)
        machine.save(place / "state")
        self.stop()
        snapshots.keep_worker(place, name, base, b"")

    def _save_worker(self, base: Snapshot, start: Snapshot, said: bytes, place: Path, name: str) -> None:
        machine = self._resumed_shared(base, start, place)
        answer = machine.open(said)
        answer += machine.save(place / "state")
        self.stop()
        snapshots.keep_worker(place, name, base, answer)

    def _resumed_shared(self, base: Snapshot, start: Snapshot, place: Path) -> Machine:
        """Return a copy of a saved guest that writes its memory into a file of its own, to be saved in turn."""
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
        machine.wake()
        running = self._handed_over(machine, snapshot.meta.hello, "restored", note, snapshot.answer)
        return replace(running, prepared=snapshot.prepared)

    def _cold(self, note: str) -> Running:
        machine = self._started(self._job.boot_timeout)
        hello = machine.hello()
        machine.wake()
        return self._handed_over(machine, hello, "cold", note)

    def _started(
        self, seconds: float, ram: Path | None = None, *, share: bool = False, incoming: bool = False
    ) -> Machine:
        folder = self._folder / str(self._count)
        folder.mkdir()
        self._count += 1
        memory = None if ram is None else boot_spec.Memory(ram, share=share, incoming=incoming)
        self._machine = Machine(self._job, folder, self._tick, seconds=seconds, memory=memory)
        return self._machine

    def _handed_over(self, machine: Machine, hello: Hello, how: str, note: str, answer: bytes | None = None) -> Running:
        seconds = time.monotonic() - machine.began
        return Running(machine.group, machine.channel, machine.folder, hello, seconds, how, note, answer)
