"""One QEMU: started through virtme-ng, its ports connected, its guest greeted and woken, saved or resumed."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import time
from collections.abc import Callable
from pathlib import Path

from kernel_matrix.relay import memory_files, preamble
from kernel_matrix.relay.job import Job
from kernel_matrix.relay.snapshots import Hello
from kernel_matrix.vm import boot_spec
from kernel_matrix.vm.process_guard import GuardedGroup
from kernel_matrix.vm.qmp import Monitor

#: seconds that the monitor may take for a save or a load
_MONITOR_TIMEOUT = 60.0
#: how often conditions are looked at that no descriptor reports
_TICK = 0.01
#: what a socket answers that QEMU has not made, or does not listen at, yet
_NOT_THERE_YET = (FileNotFoundError, ConnectionRefusedError)

#: called again and again while waiting, with the seconds that it may wait itself; raises to end the wait
Tick = Callable[[float], None]


#: programs that virtme-ng finds before the machine's
_TOOLS = Path(__file__).with_name("tools")


def search_path(environment: Path) -> str:
    """Return where virtme-ng looks for programs: `_TOOLS`, its own virtme-run, the system's."""
    return f"{_TOOLS}:{environment}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class BootError(Exception):
    """The guest did not become ready; the text is one line."""


class Machine:
    """Runs until it is killed; every wait ends ``seconds`` after QEMU's start with a BootError."""

    def __init__(
        self,
        job: Job,
        folder: Path,
        tick: Tick,
        *,
        seconds: float,
        memory: boot_spec.Memory | None = None,
    ) -> None:
        """Start QEMU and connect to the guest's ports; ``folder`` is for the sockets."""
        self.folder = folder
        self._tick = tick
        self._seconds = seconds
        self._memory = memory
        sockets = boot_spec.Sockets.below(folder)
        self._monitor_path = sockets.monitor
        command = boot_spec.vng_command(job.boot, job.vng, sockets=sockets, pidfile=folder / "pid", memory=memory)
        environment = {**os.environ, "PATH": search_path(job.vng.parent), "TMPDIR": str(folder)}
        self.began = time.monotonic()
        self._end = self.began + seconds
        # with KVM a guest's processors are the host's, and nothing is translated
        emulated = job.boot.accelerator is boot_spec.Accelerator.TCG
        self.group = GuardedGroup(command, output=job.console, environment=environment, batch=emulated)
        self._wake = socket.socket(socket.AF_UNIX)
        self.channel = socket.socket(socket.AF_UNIX)
        try:
            # before the guest reads: a port that nobody has connected to reads as ended
            self._connect(self.channel, sockets.channel)
            self._connect(self._wake, sockets.wake)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End QEMU and everything that was started for it."""
        self.group.kill()
        self.channel.close()
        self._wake.close()

    def hello(self) -> Hello:
        """Wait for the agent of a guest that boots."""
        said = json.loads(self._line(self.channel, "ready"))
        return Hello(said["release"], said["seconds"])

    def wake(self) -> None:
        """Give the guest what a saved one has not: randomness of its own and the time; it answers."""
        wake = {"entropy": os.urandom(64).hex(), "time": time.time()}
        self._wake.sendall(json.dumps(wake).encode() + b"\n")
        self._line(self._wake, "awake")

    def stacks(self, seconds: float) -> str:
        """Return what the guest's processes do, as its agent sees it; raises BootError where it does not answer."""
        self._end = time.monotonic() + seconds
        try:
            self._wake.sendall(b'{"stacks": true}\n')
        except (BlockingIOError, BrokenPipeError, ConnectionResetError) as error:
            raise BootError(f"the guest's agent takes no question: {error.strerror}") from error
        text: str = json.loads(self._line(self._wake, "answering"))["stacks"]
        return text

    def monitor(self, seconds: float) -> Monitor:
        """Connect to QEMU's monitor, whose every answer is waited for until then; raises QmpError and OSError."""
        return Monitor(self._monitor_path, seconds=seconds)

    def open(self, said: bytes) -> bytes:
        """Say all that opens a conversation with a worker; return what it has answered when it has collected."""
        left = memoryview(said)
        heard = bytearray()
        while not preamble.answered(heard):
            self._check("collected")
            moved = 0
            with contextlib.suppress(BlockingIOError):
                moved = self.channel.send(left[: 1 << 18]) if left else 0
                left = left[moved:]
            heard += (chunk := self._received())
            if not moved and not chunk:
                self._tick(_TICK)
        return bytes(heard)

    def prepare(self, said: bytes) -> None:
        """Say what all tests of a project share, and wait until the guest has imported it; raises BootError."""
        left = memoryview(said)
        while left:
            self._check("prepared")
            moved = 0
            with contextlib.suppress(BlockingIOError):
                moved = self.channel.send(left[: 1 << 18])
            left = left[moved:]
            if not moved:
                self._tick(_TICK)
        if (line := self._line(self.channel, "prepared")) != b"prepared\n":
            raise BootError(f"the guest was to be prepared and said {line!r}")

    def save(self, state: Path) -> bytes:
        """Stop the guest and write its devices' state; return what it had said and nobody has read yet.

        Raises QmpError.
        """
        with contextlib.closing(self._migrating()) as monitor:
            monitor.execute("stop")
            monitor.execute("migrate", uri=f"exec:cat > {shlex.quote(str(state))}")
            monitor.wait_for_migration()
        return self._received()

    def resume(self, state: Path, changes: Path | None = None) -> None:
        """Load what `save` wrote, of a worker also its pages, and let the guest go on; raises QmpError and OSError."""
        assert self._memory is not None
        with contextlib.closing(self._migrating()) as monitor:
            if changes is not None:
                # a monitor that answers is that of a QEMU which has mapped its memory
                memory_files.write_changes(changes, int((self.folder / "pid").read_text()), self._memory.ram)
            monitor.execute("migrate-incoming", uri=f"exec:cat {shlex.quote(str(state))}")
            monitor.wait_for_migration()
            monitor.execute("cont")

    def _migrating(self) -> Monitor:
        """Connect to the monitor of a QEMU that may be starting, and have it tell how a migration goes."""
        while True:
            try:
                monitor = self.monitor(_MONITOR_TIMEOUT)
            except _NOT_THERE_YET:
                self._check("ready")
                self._tick(_TICK)
                continue
            # x-ignore-shared: the memory's file is the memory, saved and restored; the stream holds the devices
            names = ["events", "x-ignore-shared"]
            wanted = [{"capability": name, "state": True} for name in names]
            try:
                monitor.execute("migrate-set-capabilities", capabilities=wanted)
            except BaseException:
                monitor.close()
                raise
            return monitor

    def _connect(self, port: socket.socket, path: Path) -> None:
        while True:
            try:
                port.connect(str(path))
            except _NOT_THERE_YET:
                self._check("ready")
                self._tick(_TICK)
            else:
                port.settimeout(0)
                return

    def _received(self) -> bytes:
        """Return what the guest has said by now."""
        heard = bytearray()
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while chunk := self.channel.recv(1 << 18):
                heard += chunk
        return bytes(heard)

    def _line(self, port: socket.socket, what: str) -> bytes:
        """Read one line of the agent's, byte by byte: what follows it is for another reader."""
        line = bytearray()
        while not line.endswith(b"\n"):
            try:
                byte = port.recv(1)
            except BlockingIOError:
                self._check(what)
                self._tick(_TICK)
                continue
            except ConnectionResetError:
                byte = b""
            if not byte:
                raise BootError(f"QEMU ended before the guest was {what}")
            line += byte
        return bytes(line)

    def _check(self, what: str) -> None:
        if self.group.ended():
            raise BootError(f"QEMU ended before the guest was {what}")
        if time.monotonic() > self._end:
            raise BootError(f"not {what} after {self._seconds:.0f} s")
