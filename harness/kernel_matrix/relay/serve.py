"""The "python" that pytest-xdist starts for a kernel: it boots the guest and carries execnet's bytes to and from it.

xdist opens its gateways one after another and waits for each. So the relay answers execnet's bootstrap itself, at
once, and buffers what the controller sends until the guest is ready: guests boot in parallel, a replacement boots
while reports of other guests are read, and a guest that waits for a free slot blocks nobody.

Started as ``python -m kernel_matrix.relay.serve JOB ENDING [-u -c ...]``. JOB is a file with a Job as JSON. The Ending
is written to the file ENDING before standard output is closed, so it exists when the controller sees the node go down.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from kernel_matrix.relay import pace, payload, preamble
from kernel_matrix.relay.boot import Boots, Preamble, Running
from kernel_matrix.relay.job import Job
from kernel_matrix.relay.machine import BootError
from kernel_matrix.shared import wire
from kernel_matrix.shared.bpf.compiled import COMPILER_VARIABLE
from kernel_matrix.shared.channel import console
from kernel_matrix.shared.project import ENGINE, HOME, ROOT_VARIABLE
from kernel_matrix.vm import slots
from kernel_matrix.vm.ending import ENDING, STARTED, End, Ending, Started

#: seconds between two checks of a condition that no descriptor reports
_TICK = 0.1


class Over(Exception):
    """The guest or the controller has ended, and the relay with it."""

    def __init__(self, end: End, reason: str, doing: str = "") -> None:
        super().__init__(reason)
        self.end = end
        self.reason = reason
        self.doing = doing


class Relay:
    """One guest's life, from the wait for a slot to its ending."""

    def __init__(self, job: Job, folder: Path, ending_path: Path) -> None:
        self.job = job
        self._ending_path = ending_path
        self.folder = folder
        self.release = ""
        self.boot_seconds = 0.0
        self.slowness = 1.0
        self._limit = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._to_guest = bytearray()
        #: length of execnet's bootstrap line, with which that begins
        self._bootstrap = 0
        self._preamble_end = 0
        self._from_guest = bytearray()
        self._last_sent = b""
        self._console_start = 0
        #: end of the console output that the guest wrote before it was examined; None: it was not examined
        self._console_end: int | None = None

    def run(self) -> Ending:
        """Serve until the guest or the controller has ended."""
        try:
            self._answer_bootstrap()
            with self._slot():
                self._mark_console()
                boots = Boots(self.job, self.folder, lambda wait: self._read_controller(wait=wait))
                try:
                    self._started(boots.start(self._wait_for_preamble()))
                    self._pump(boots)
                except BootError as error:
                    raise Over(End.NO_BOOT, str(error)) from error
                finally:
                    boots.stop()
        except Over as over:
            return self.ending(over)
        except OSError as error:
            return self.ending(Over(End.EXITED, f"the relay failed: {error}"))
        raise AssertionError("the pump ends by an exception")

    def _mark_console(self) -> None:
        self.job.console.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            self._console_start = self.job.console.stat().st_size

    def _answer_bootstrap(self) -> None:
        # execnet waits for one byte after its bootstrap line; the guest's own answer is dropped later
        line = bytearray()
        while not line.endswith(b"\n"):
            chunk = os.read(0, 1 << 16)
            if not chunk:
                raise Over(End.RELEASED, "the controller went away")
            line += chunk
        self._to_guest += preamble.without_name(line)
        self._bootstrap = len(self._to_guest)
        os.write(1, b"1")

    @contextlib.contextmanager
    def _slot(self) -> Iterator[None]:
        while (descriptor := slots.try_take(self.job.slots)) is None:
            self._read_controller(wait=_TICK)
        try:
            yield
        finally:
            os.close(descriptor)

    def _read_controller(self, *, wait: float) -> None:
        """Read what the controller has sent; raise Over when it has closed its end."""
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            if not selector.select(wait):
                return
        chunk = os.read(0, 1 << 16)
        if not chunk:
            raise Over(End.RELEASED, "no more work")
        self._to_guest += chunk
        self._last_sent = (self._last_sent + chunk)[-len(preamble.FAREWELL) :]

    def _wait_for_preamble(self) -> Preamble | None:
        """Wait for the controller's preamble and return what a guest receives with it; None when no worker is saved."""
        if self.job.worker == "never":
            return None
        # while the controller is still sending
        prepare = self._shared(rehearse=True) if self.job.rehearsal else None
        shared, rest = self._shared(), self._rest()
        while (end := preamble.end(self._to_guest)) is None:
            self._read_controller(wait=_TICK)
        self._preamble_end = end
        return Preamble(prepare=prepare, shared=shared, rest=rest + bytes(self._to_guest[:end]))

    def _shared(self, *, rehearse: bool = False) -> bytes:
        """Return the agent's first part: the engine, and what all tests of the project share."""
        rehearsal = {"pytest": self.job.rehearsal, "modules": payload.guest_modules()} if rehearse else None
        return self._part(self._packed.shared, path=str(HOME / ENGINE), rehearse=rehearsal)

    def _rest(self) -> bytes:
        """Return the agent's second part: the rest of the project."""
        return self._part(self._packed.rest, bootstrap=self._bootstrap)

    def _part(self, tar: bytes, **more: object) -> bytes:
        """Return a header and the tar; nothing in it depends on the machine, as it names a saved worker."""
        environment = {
            "HARNESS_KERNEL": self.job.kernel,
            ROOT_VARIABLE: str(HOME),
            COMPILER_VARIABLE: self.job.payload.compiler,
        }
        header = json.dumps({"bytes": len(tar), "environment": environment, **more})
        return header.encode() + b"\n" + tar

    @cached_property
    def _packed(self) -> payload.Packed:
        """The payload, packed once: the bytes that name a saved worker are the bytes that a guest receives."""
        return payload.pack(self.job.payload)

    def _started(self, running: Running) -> None:
        """Take over a guest that is ready: queue for it what it has not received yet."""
        self._channel = running.channel
        self._process = running.group.process
        self.release = running.hello.release
        self.slowness = pace.slowness(running.probe)
        self._limit = pace.silence(self.job, running.probe)
        self.boot_seconds = running.seconds
        began = time.monotonic() - running.seconds
        started = Started(
            self.job.kernel,
            running.how,
            began,
            running.seconds,
            running.group.process.pid,
            running.note,
            str(running.folder),
            self.release,
        )
        worker = self._ending_path.name.removesuffix(ENDING)
        wire.write(self._ending_path.with_name(f"{worker}.{os.getpid()}{STARTED}"), started)
        if running.answer is None:
            shared = b"" if running.prepared else self._shared()
            self._to_guest[:0] = shared + self._rest()
        else:
            del self._to_guest[: self._preamble_end]
            self._from_guest += running.answer

    def _pump(self, boots: Boots) -> NoReturn:
        """Carry bytes until one side ends or the guest falls silent."""
        answered = False
        last_received = time.monotonic()
        while True:
            if self._from_guest and not answered:
                del self._from_guest[:1]  # the guest's own answer to the bootstrap
                answered = True
            if self._from_guest:
                _write_all(1, self._from_guest)
                self._from_guest.clear()
            if self._exchange(wait=_TICK):
                last_received = time.monotonic()
            if time.monotonic() - last_received > self._limit:
                self.end_console()
                doing = boots.doing(min(self.slowness, pace.MOST_SLOWNESS))
                raise Over(End.SILENT, f"no word from the guest for {self._limit:.0f} s", doing)

    def _exchange(self, *, wait: float) -> bool:
        """Move bytes both ways once; return whether the guest has sent any."""
        assert self._channel is not None
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            writing = selectors.EVENT_WRITE if self._to_guest else 0
            selector.register(self._channel, selectors.EVENT_READ | writing)
            ready = {key.fileobj: events for key, events in selector.select(wait)}
        if 0 in ready:
            self._read_controller(wait=0)
        received = False
        events = ready.get(self._channel, 0)
        if events & selectors.EVENT_READ:
            received = self._receive()
        if events & selectors.EVENT_WRITE:
            with contextlib.suppress(BlockingIOError):
                try:
                    sent = self._channel.send(self._to_guest[: 1 << 18])
                except (BrokenPipeError, ConnectionResetError):
                    sent = 0
                del self._to_guest[:sent]
        return received

    def _receive(self) -> bool:
        assert self._channel is not None
        assert self._process is not None
        try:
            chunk = self._channel.recv(1 << 18)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5)
            # after the controller's farewell, the guest may close its end before the controller does
            released = self._last_sent == preamble.FAREWELL
            raise Over(End.RELEASED, "no more work") if released else Over(End.EXITED, "QEMU ended")
        self._from_guest += chunk
        return True

    def end_console(self) -> None:
        """Remember the console's size: what follows is an answer to the relay's examination."""
        self._console_end = self.job.console.stat().st_size

    def ending(self, over: Over) -> Ending:
        """Return how the guest ended, from the reason and the guest's console."""
        text = ""
        with contextlib.suppress(FileNotFoundError), self.job.console.open("rb") as file:
            file.seek(self._console_start)
            size = None if self._console_end is None else self._console_end - self._console_start
            text = file.read(size).decode(errors="replace")
        end, reason = over.end, over.reason
        fault = console.fault(text)
        if fault is not None and end is not End.RELEASED:
            end, reason = End.PANIC if self.release else End.NO_BOOT, f"the kernel panicked: {fault}"
        return Ending(
            kernel=self.job.kernel,
            end=end,
            reason=reason,
            release=self.release,
            boot_seconds=self.boot_seconds,
            slowness=self.slowness,
            console=text,
            doing=over.doing,
        )


def _write_all(descriptor: int, data: bytearray) -> None:
    view = memoryview(bytes(data))
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BrokenPipeError:
            raise Over(End.RELEASED, "the controller went away") from None


def main(arguments: list[str]) -> int:
    """Run one relay; the arguments that execnet adds for a Python are ignored."""
    # Ctrl-C reaches the whole process group; the controller decides, and ends the relay by closing its stdin
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job = wire.decode(Path(arguments[0]).read_bytes(), Job)
    ending_path = Path(arguments[1])
    # a short path, because that of a unix socket has at most 107 bytes
    folder = Path(tempfile.mkdtemp(prefix="harness-"))
    try:
        wire.write(ending_path, Relay(job, folder, ending_path).run())
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
