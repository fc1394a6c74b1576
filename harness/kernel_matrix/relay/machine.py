"""Run one QEMU through virtme-ng: connect its ports, wake its guest, save or resume it."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import time
from collections.abc import Callable
from pathlib import Path

from kernel_matrix.relay import pace, preamble
from kernel_matrix.relay.job import Job
from kernel_matrix.relay.saved import memory_files
from kernel_matrix.relay.saved.snapshots import Hello
from kernel_matrix.vm import boot_spec
from kernel_matrix.vm.process_guard import GuardedGroup
from kernel_matrix.vm.qmp import Monitor

#: seconds that the monitor has for a save or a load
_MONITOR_TIMEOUT = 60.0
#: seconds between two checks of a condition that no descriptor reports
_TICK = 0.01
#: the beginning of what Python prints of an exception
_TRACEBACK = "Traceback (most recent call last):\n"
#: errors of connecting to a socket that QEMU has not created, or does not listen on, yet
_NOT_THERE_YET = (FileNotFoundError, ConnectionRefusedError)

#: called repeatedly during a wait, with the seconds that it may wait itself; raises to end the wait
Tick = Callable[[float], None]


#: programs that virtme-ng runs in place of the host's
_TOOLS = Path(__file__).with_name("tools")


def search_path(environment: Path) -> str:
    """Return virtme-ng's PATH: `_TOOLS`, its own virtme-run, the system's programs."""
    return f"{_TOOLS}:{environment}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class BootError(Exception):
    """The guest did not become ready; the text is one line."""


class Machine:
    """A QEMU that runs until it is killed; every wait ends ``seconds`` after QEMU's start with a BootError."""

    def __init__(
        self,
        job: Job,
        folder: Path,
        tick: Tick,
        *,
        seconds: float,
        memory: boot_spec.Memory | None = None,
        command: list[str] | None = None,
    ) -> None:
        """Start QEMU and connect to the guest's ports; ``folder`` is for the sockets.

        ``command``: QEMU's own, where it is known; None: virtme-ng makes it.
        """
        self.folder = folder
        self._job = job
        self._tick = tick
        self._seconds = seconds
        self._memory = memory
        sockets = boot_spec.Sockets.below(folder)
        self._monitor_path = sockets.monitor
        self.by_virtme_ng = command is None
        if command is None:
            command = boot_spec.vng_command(job.boot, job.vng, sockets=sockets, pidfile=folder / "pid", memory=memory)
        environment = {**os.environ, "PATH": search_path(job.vng.parent), "TMPDIR": str(folder)}
        self.began = time.monotonic()
        self._end = self.began + seconds
        # with KVM the host's processors run the guest's code, and nothing is translated
        emulated = job.boot.accelerator is boot_spec.Accelerator.TCG
        # the file has what the kernel's guests before this one have printed
        self._console_start = job.console.stat().st_size if job.console.exists() else 0
        self.group = GuardedGroup(command, output=job.console, environment=environment, batch=emulated)
        self._wake = socket.socket(socket.AF_UNIX)
        self.channel = socket.socket(socket.AF_UNIX)
        try:
            # before the guest reads: a port without a connection reads as end of file
            self._connect(self.channel, sockets.channel)
            self._connect(self._wake, sockets.wake)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End QEMU and every process that was started for it."""
        self.group.kill()
        self.channel.close()
        self._wake.close()

    def hello(self) -> Hello:
        """Wait until the agent of a booting guest is ready."""
        greeting = json.loads(self._line(self.channel, "ready"))
        return Hello(greeting["release"])

    def wake(self) -> float:
        """Send the guest what a snapshot cannot hold: fresh entropy, the time, and the limits that fit its speed.

        Return the seconds of its speed probe.
        """
        wake = {"entropy": os.urandom(64).hex(), "time": time.time()}
        self._wake.sendall(json.dumps(wake).encode() + b"\n")
        seconds: float = json.loads(self._line(self._wake, "awake"))["seconds"]
        self._wake.sendall(json.dumps({"limits": pace.limits(self._job, seconds)}).encode() + b"\n")
        self._line(self._wake, "awake")
        return seconds

    def stacks(self, seconds: float) -> str:
        """Return what the guest's processes are doing, as its agent reports it; raises BootError without an answer."""
        self._end = time.monotonic() + seconds
        try:
            self._wake.sendall(b'{"stacks": true}\n')
        except (BlockingIOError, BrokenPipeError, ConnectionResetError) as error:
            raise BootError(f"the guest's agent takes no question: {error.strerror}") from error
        text: str = json.loads(self._line(self._wake, "answering"))["stacks"]
        return text

    def monitor(self, seconds: float) -> Monitor:
        """Connect to QEMU's monitor; each of its answers may take ``seconds``. Raises QmpError and OSError."""
        return Monitor(self._monitor_path, seconds=seconds)

    def open(self, data: bytes) -> bytes:
        """Send a preamble; return the worker's answer as soon as it has collected."""
        unsent = memoryview(data)
        answer = bytearray()
        while not preamble.answered(answer):
            self._check("collected")
            sent = 0
            with contextlib.suppress(BlockingIOError):
                sent = self.channel.send(unsent[: 1 << 18]) if unsent else 0
                unsent = unsent[sent:]
            answer += (chunk := self._received())
            if not sent and not chunk:
                self._tick(_TICK)
        return bytes(answer)

    def prepare(self, data: bytes) -> None:
        """Send what all tests of a project share, and wait until the guest has imported it; raises BootError."""
        unsent = memoryview(data)
        while unsent:
            self._check("prepared")
            sent = 0
            with contextlib.suppress(BlockingIOError):
                sent = self.channel.send(unsent[: 1 << 18])
            unsent = unsent[sent:]
            if not sent:
                self._tick(_TICK)
        if (line := self._line(self.channel, "prepared")) != b"prepared\n":
            raise BootError(f"the guest was to be prepared and answered {line!r}")

    def save(self, state: Path) -> bytes:
        """Stop the guest and write its devices' state; return what it has sent and is not yet read.

        Raises QmpError.
        """
        with contextlib.closing(self._migrating()) as monitor:
            monitor.execute("stop")
            monitor.execute("migrate", uri=f"exec:cat > {shlex.quote(str(state))}")
            monitor.wait_for_migration()
        return self._received()

    def resume(self, state: Path, changes: Path | None = None) -> None:
        """Load what `save` wrote, and a worker's pages, and continue the guest; raises QmpError and OSError."""
        assert self._memory is not None
        with contextlib.closing(self._migrating()) as monitor:
            if changes is not None:
                # a QEMU whose monitor answers has mapped its memory
                memory_files.write_changes(changes, int((self.folder / "pid").read_text()), self._memory.ram)
            monitor.execute("migrate-incoming", uri=f"exec:cat {shlex.quote(str(state))}")
            monitor.wait_for_migration()
            monitor.execute("cont")

    def _migrating(self) -> Monitor:
        """Connect to the monitor of a QEMU that may still be starting, and enable its migration events."""
        while True:
            try:
                monitor = self.monitor(_MONITOR_TIMEOUT)
            except _NOT_THERE_YET:
                self._check("ready")
                self._tick(_TICK)
                continue
            # x-ignore-shared: the memory is its file, and only the devices are in the stream
            names = ["events", "x-ignore-shared"]
            capabilities = [{"capability": name, "state": True} for name in names]
            try:
                monitor.execute("migrate-set-capabilities", capabilities=capabilities)
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
        """Return what the guest has sent by now."""
        data = bytearray()
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while chunk := self.channel.recv(1 << 18):
                data += chunk
        return bytes(data)

    def _line(self, port: socket.socket, what: str) -> bytes:
        """Read one line of the agent byte by byte, because what follows it is for another reader."""
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
                raise BootError(self._ended(what))
            line += byte
        return bytes(line)

    def _ended(self, what: str) -> str:
        """Return how a guest ended that never was there: the exception of virtme-ng, where it has left one."""
        text = self._job.console.read_bytes()[self._console_start :].decode(errors="replace")
        _, trace, rest = text.rpartition(_TRACEBACK)
        lines = [line for line in rest.splitlines() if line and not line.startswith(" ")]
        return f"virtme-ng failed: {lines[0]}" if trace and lines else f"QEMU ended before the guest was {what}"

    def _check(self, what: str) -> None:
        if self.group.ended():
            raise BootError(self._ended(what))
        if time.monotonic() > self._end:
            raise BootError(f"not {what} after {self._seconds:.0f} s")
