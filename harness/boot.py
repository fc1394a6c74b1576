"""From a GuestSpec to a guest that is ready: booted through virtme-ng, or restored from the snapshot of such a boot.

The first use of a kernel boots it, saves it when its agent is ready, and restores that; later uses restore. What was
saved never runs on itself: its memory's file would change under the snapshot.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shlex
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from harness import snapshots, vm
from harness.process_guard import GuardedGroup
from harness.qmp import Monitor, QmpError
from harness.snapshots import Hello, Snapshot

#: seconds from QEMU's start to the answer of a restored guest: below one on an idle machine, emulated
_RESTORE_TIMEOUT = 30.0
#: seconds that saving may take
_SAVE_TIMEOUT = 60.0
#: what a disk keeps free when a guest is saved
_SPARE_MIB = 64
#: how often conditions are looked at that no descriptor reports
_TICK = 0.02

#: called again and again while waiting, with the seconds that it may wait itself; raises to end the wait
Tick = Callable[[float], None]


class BootError(Exception):
    """The guest did not become ready; the text is one line."""


@dataclass(frozen=True, slots=True)
class Running:
    """A guest whose agent waits for the project."""

    group: GuardedGroup
    channel: socket.socket
    hello: Hello
    #: from QEMU's start
    seconds: float
    #: "cold" or "restored"
    how: str
    #: what the user should know, empty when all went as it does
    note: str = ""


class Boots:
    """Starts the guests of one spec; what it has started and not handed over is killed by `stop`."""

    def __init__(self, spec: vm.GuestSpec, folder: Path, tick: Tick) -> None:
        self._spec = spec
        self._folder = folder
        self._tick = tick
        self._group: GuardedGroup | None = None
        self._started = 0.0
        self._count = 0

    def start(self) -> Running:
        """Return a guest that is ready; raises BootError."""
        if self._spec.snapshot is None:
            return self._cold("")
        folder, key = self._spec.snapshot
        note = ""
        for _ in range(2):
            if why := snapshots.unusable(folder, key):
                return self._cold(f"no snapshot: {why}")
            try:
                snapshot = self._snapshot(folder, key)
            except QmpError as error:
                self.stop()
                snapshots.mark_unusable(folder, key, str(error))
                continue
            except OSError as error:  # the disk is full, or may not be written to: another time it may
                self.stop()
                return self._cold(f"no snapshot: {error.filename or folder}: {error.strerror}")
            try:
                return self._restored(snapshot, note)
            except (QmpError, BootError) as error:
                self.stop()
                snapshots.discard(folder, key)
                note = f"the snapshot was made again: {error}"
        snapshots.mark_unusable(folder, key, note)
        return self._cold(f"no snapshot: {note}")

    def stop(self) -> None:
        """Kill the guest that was started last."""
        if self._group is not None:
            self._group.kill()
            self._group = None

    def _snapshot(self, folder: Path, key: str) -> Snapshot:
        """Return the snapshot, made now when there is none; raises BootError and QmpError."""
        if found := snapshots.find(folder, key):
            return found
        with self._locked(folder / f"{key}.lock"):
            if found := snapshots.find(folder, key):
                return found
            # a guest whose memory's file cannot grow is killed by SIGBUS
            if shutil.disk_usage(folder).free < (self._spec.memory_mib + _SPARE_MIB) << 20:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
            with snapshots.making(folder, key) as place:
                self._save(place, key)
            made = snapshots.find(folder, key)
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

    def _save(self, place: Path, key: str) -> None:
        memory = vm.Memory(place / "ram", self._new_path("monitor"), share=True)
        channel = self._run(memory, self._spec.boot_timeout)
        with channel:
            hello = self._hello(channel)
            monitor = self._monitor(memory.monitor, _SAVE_TIMEOUT)
            with contextlib.closing(monitor):
                _allow_migration(monitor)
                monitor.execute("stop")
                monitor.execute("migrate", uri=f"exec:cat > {shlex.quote(str(place / 'state'))}")
                monitor.wait_for_migration()
        self.stop()
        snapshots.keep(place, key, kernel=self._spec.kernel, hello=hello)

    def _restored(self, snapshot: Snapshot, note: str) -> Running:
        memory = vm.Memory(snapshot.ram, self._new_path("monitor"), share=False)
        channel = self._run(memory, _RESTORE_TIMEOUT)
        try:
            monitor = self._monitor(memory.monitor, _RESTORE_TIMEOUT)
            with contextlib.closing(monitor):
                _allow_migration(monitor)
                monitor.execute("migrate-incoming", uri=f"exec:cat {shlex.quote(str(snapshot.state))}")
                monitor.wait_for_migration()
                monitor.execute("cont")
            self._wake(channel, _RESTORE_TIMEOUT)
        except BaseException:
            channel.close()
            raise
        return self._handed_over(channel, snapshot.meta.hello, "restored", note)

    def _cold(self, note: str) -> Running:
        channel = self._run(None, self._spec.boot_timeout)
        try:
            hello = self._hello(channel)
            self._wake(channel, self._spec.boot_timeout)
        except BaseException:
            channel.close()
            raise
        return self._handed_over(channel, hello, "cold", note)

    def _handed_over(self, channel: socket.socket, hello: Hello, how: str, note: str) -> Running:
        assert self._group is not None
        return Running(self._group, channel, hello, time.monotonic() - self._started, how, note)

    # -- steps

    def _run(self, memory: vm.Memory | None, seconds: float) -> socket.socket:
        """Start QEMU and connect to the guest's channel."""
        path = self._new_path("channel")
        command = vm.vng_command(self._spec, socket=path, pidfile=self._new_path("pid"), memory=memory)
        environment = dict(os.environ)
        # virtme-ng looks for virtme-run and the system's tools there
        environment["PATH"] = f"{self._spec.vng.parent}:{environment.get('PATH', '')}:/usr/sbin:/sbin"
        environment["TMPDIR"] = str(self._folder)
        self._started = time.monotonic()
        self._group = GuardedGroup(command, output=self._spec.console, environment=environment)
        while True:
            channel = socket.socket(socket.AF_UNIX)
            try:
                channel.connect(str(path))
            except OSError:
                channel.close()
                self._check(seconds, "ready")
                self._tick(_TICK)
            else:
                channel.settimeout(0)
                return channel

    def _new_path(self, name: str) -> Path:
        self._count += 1
        return self._folder / f"{name}-{self._count}"

    def _monitor(self, path: Path, seconds: float) -> Monitor:
        while True:
            try:
                return Monitor(path, seconds=seconds)
            except OSError:
                self._check(seconds, "ready")
                self._tick(_TICK)

    def _hello(self, channel: socket.socket) -> Hello:
        said = json.loads(self._line(channel, self._spec.boot_timeout, "ready"))
        return Hello(said["release"], said["seconds"])

    def _wake(self, channel: socket.socket, seconds: float) -> None:
        """Give the guest what a saved one has not: randomness of its own and the time; it answers."""
        wake = {"entropy": os.urandom(64).hex(), "time": time.time()}
        channel.sendall(json.dumps(wake).encode() + b"\n")
        self._line(channel, seconds, "awake")

    def _line(self, channel: socket.socket, seconds: float, what: str) -> bytes:
        """Read one line of the agent's, byte by byte: what follows it is for another reader."""
        line = bytearray()
        while not line.endswith(b"\n"):
            try:
                byte = channel.recv(1)
            except BlockingIOError:
                self._check(seconds, what)
                self._tick(_TICK)
                continue
            except OSError:
                byte = b""
            if not byte:
                raise BootError(f"QEMU ended before the guest was {what}")
            line += byte
        return bytes(line)

    def _check(self, seconds: float, what: str) -> None:
        assert self._group is not None
        if self._group.ended():
            raise BootError(f"QEMU ended before the guest was {what}")
        if time.monotonic() - self._started > seconds:
            raise BootError(f"not {what} after {seconds:.0f} s")


def _allow_migration(monitor: Monitor) -> None:
    # x-ignore-shared: the memory's file is the memory, saved and restored; the stream holds the devices
    names = ["events", "x-ignore-shared"]
    monitor.execute("migrate-set-capabilities", capabilities=[{"capability": name, "state": True} for name in names])
