"""The first program of the guest: it greets the host, unpacks the project, and becomes an execnet worker.

It is part of the root image and therefore small and self-contained. The protocol on its channel, a virtio-serial port:

1. guest to host, one line of JSON: ``{"release": uname -r}``
2. host to guest, one line of JSON: ``{"bytes": size of the tar that follows, "path": folder of the engine,
   "environment": {name: value}, "rehearse": null or {"pytest": [argument, ...], "modules": [name, ...]}}``, and a tar
   of the engine and of the files that all tests of the project share, unpacked into a tmpfs at /harness
3. if "rehearse" is not null, guest to host: one line, ``prepared``
4. host to guest, one line of JSON: ``{"bytes": size, "environment": {name: value}, "bootstrap": size of execnet's
   bootstrap line}``, and a tar of the rest
5. from here on execnet's own protocol: its bootstrap line, answered by one byte, then its messages.

With the argument ``--prepare`` it does in advance, before 1, what every copy of a saved guest would have to do: imports
and a rehearsal. A guest that will not be saved imports only what its tests need.

The guest may be saved after 1, after 3, and again whenever its worker waits, and continue in any number of copies. A
second port wakes each copy before it does anything else: host to guest, one line of JSON: ``{"entropy": random bytes
in hexadecimal, "time": seconds since 1970}``; guest to host, one line of JSON: ``{"seconds": CPU speed probe}``; host
to guest, one line of JSON: ``{"limits": {name: value}}``, variables that follow from that speed, which are written to
/run/harness-limits; guest to host, one line: ``awake``. A separate process serves this port, independently of the
worker, which seeds Python's own random numbers and reads its limits itself. That process also reports what a silent
worker is doing: host to guest ``{"stacks": true}``; guest to host, one line of JSON: ``{"stacks": text}``.

Printed text goes to the console; only protocol bytes reach the channel.
"""

from __future__ import annotations

import ast
import faulthandler
import fcntl
import gc
import importlib
import inspect
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PORT_NAME = "harness"
WAKE_NAME = "harness-wake"
PROJECT = "/harness"
#: the file with the limits of this copy of the guest
LIMITS = "/run/harness-limits"
#: seconds to wait for the first part of a worker's stacks, and for each further part
STACKS_BEGIN, STACKS_GO_ON = 3.0, 0.3
#: rounds of the speed probe, and the iterations of each: 0.3 ms on a current processor, 3 to 8 ms when emulated
PROBE_ROUNDS, PROBE_ITERATIONS = 5, 5_000
#: Imported before a prepared guest is ready, because tests and every worker need them. Neither xdist, because pytest
#: rewrites its assertions at its first import, nor parts of the project, whose code arrives later.
PREIMPORTED = ("pytest", "_pytest.assertion.rewrite", "pyroute2", "scapy.layers.inet6", "ctypes", "unittest.mock")
# linux/random.h
_RNDADDENTROPY = 0x40085203
_RNDRESEEDCRNG = 0x5207


def open_port(port_name: str) -> int:
    """Open the virtio-serial port with that name; return its file descriptor."""
    for name in Path("/sys/class/virtio-ports").glob("*/name"):
        if name.read_text().strip() == port_name:
            return os.open(f"/dev/{name.parent.name}", os.O_RDWR | os.O_CLOEXEC)
    raise SystemExit(f"agent: no virtio-serial port is named {port_name}")


def probe_speed() -> float:
    """Return the duration in seconds of a fixed piece of Python, by which limits are scaled.

    The median of a few rounds: an emulator that has just loaded a saved guest translates its code in the first, and
    others may take the processor for as long as some rounds.
    """
    return sorted(_round() for _ in range(PROBE_ROUNDS))[PROBE_ROUNDS // 2]


def _round() -> float:
    start = time.monotonic()
    total = 0
    for number in range(PROBE_ITERATIONS):
        total += number
    return time.monotonic() - start


def read_exactly(port: int, size: int) -> bytearray:
    """Read ``size`` bytes; a bytearray, because ``bytes +=`` is quadratic."""
    data = bytearray()
    while len(data) < size:
        chunk = os.read(port, min(1 << 16, size - len(data)))
        if not chunk:
            raise SystemExit("agent: the host closed the channel")
        data += chunk
    return data


def read_line(port: int) -> bytes:
    """Read a line with its newline byte by byte, because what follows belongs to the next reader."""
    line = bytearray()
    while not line.endswith(b"\n"):
        line += read_exactly(port, 1)
    return bytes(line)


def write_all(port: int, data: bytes) -> None:
    """Write all of the data."""
    view = memoryview(data)
    while view:
        view = view[os.write(port, view) :]


def wake(entropy: bytes, now: float) -> None:
    """Set the time and the entropy of a restored guest, which are otherwise the same in every copy.

    A restored kernel's random generator is seeded already and would not use new entropy before its next reseeding
    (random(4)); RNDRESEEDCRNG forces that.
    """
    time.clock_settime(time.CLOCK_REALTIME, now)
    with open("/dev/urandom", "wb") as device:  # noqa: PTH123 - a descriptor for ioctl is all that is wanted
        # struct rand_pool_info: entropy_count in bits, buf_size in bytes, buf
        pool = struct.pack("ii", len(entropy) * 8, len(entropy)) + entropy
        fcntl.ioctl(device, _RNDADDENTROPY, pool)
        fcntl.ioctl(device, _RNDRESEEDCRNG)


def answer_wakes() -> None:
    """Fork the process that wakes each copy of this guest and reports the stacks of its worker.

    The worker's part is a signal handler in C, which also runs while Python is in a library call that never returns.
    """
    reading, writing = os.pipe()
    if os.fork():
        os.close(reading)
        faulthandler.register(signal.SIGUSR1, file=writing, all_threads=True)
        return
    os.close(writing)
    worker = os.getppid()
    port = open_port(WAKE_NAME)
    while True:
        write_all(port, answer(json.loads(read_line(port)), worker, reading) + b"\n")


def answer(request: dict[str, Any], worker: int, reading: int) -> bytes:
    """Do what the host requests of the process that wakes the guest; return the answer's line."""
    if "stacks" in request:
        return json.dumps({"stacks": f"{python_stacks(worker, reading)}\n{kernel_stacks()}"}).encode()
    if "limits" in request:
        Path(LIMITS).write_text(json.dumps(request["limits"]))
        return b"awake"
    wake(bytes.fromhex(request["entropy"]), request["time"])
    return json.dumps({"seconds": probe_speed()}).encode()


def python_stacks(worker: int, reading: int) -> str:
    """Return the Python stacks of the worker's threads, complete when no more output follows for a moment."""
    os.kill(worker, signal.SIGUSR1)
    text = bytearray()
    seconds = STACKS_BEGIN
    while select.select([reading], [], [], seconds)[0] and (chunk := os.read(reading, 1 << 16)):
        text += chunk
        seconds = STACKS_GO_ON
    return text.decode(errors="replace") or "the worker's Python does not answer\n"


def kernel_stacks() -> str:
    """Return the command, state and kernel stack of each process except kernel threads and this process."""
    lines = []
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda folder: int(folder.name)):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            if not command or int(folder.name) in {1, os.getpid()}:
                continue
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            stack = (folder / "stack").read_text()
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        lines += [f"process {folder.name} ({state}) {command[:200]}", *(f"  {line}" for line in stack.splitlines())]
    return "\n".join(lines)


def rehearse() -> None:
    """Run a pytest without tests, so that a worker finds pytest and its plugins imported and initialised."""
    import pytest

    folder = tempfile.mkdtemp()
    arguments = ["--collect-only", "-qq", f"--rootdir={folder}", "-c", "/dev/null", "-p", "no:cacheprovider", folder]
    if (status := pytest.main(arguments)) != pytest.ExitCode.NO_TESTS_COLLECTED:
        raise SystemExit(f"agent: the rehearsal ended with {status!r}")


def rehearse_project(words: list[str], modules: list[str]) -> None:
    """Do the same for a project without its test files: import its conftests and these modules.

    Errors of pytest are ignored here, because pytest repeats them when the tests are there.
    """
    import pytest

    sys.path.insert(0, PROJECT)
    pytest.main(words)
    sys.path.remove(PROJECT)
    for name in modules:
        importlib.import_module(name)


def mount_project() -> None:
    """Mount a tmpfs for the project, because the image itself is read-only."""
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=75%", "project", PROJECT], check=True)
    os.chdir(PROJECT)


def take(port: int) -> dict[str, Any]:
    """Read a header, unpack the tar that follows it, set the environment; return the header.

    Under emulation, the program tar is several times faster than Python's module.
    """
    header: dict[str, Any] = json.loads(read_line(port))
    data = read_exactly(port, header["bytes"])
    subprocess.run(["/bin/tar", "--extract", "--directory", PROJECT], input=data, check=True)
    os.environ.update(header["environment"])
    return header


class Worker:
    """The guest's end of an execnet gateway, compiled in advance: its source equals the one that the host sends."""

    def __init__(self) -> None:
        import execnet.gateway_base

        self._source = inspect.getsource(execnet.gateway_base)
        self._code = compile(self._source, "<execnet>", "exec")

    def serve(self, bootstrap: bytes) -> None:
        """Execute execnet's bootstrap line, the repr of a source (execnet.gateway_bootstrap.sendexec)."""
        text: str = ast.literal_eval(bootstrap.decode().strip())
        namespace: dict[str, object] = {"__name__": "__main__"}
        if text.startswith(self._source):
            exec(self._code, namespace)  # noqa: S102
            text = text[len(self._source) :]
        exec(text, namespace)  # noqa: S102


def prepare() -> None:
    """Do once, before the guest is saved, what every copy of it would have to do."""
    from _pytest.config import default_plugins

    for name in [*PREIMPORTED, *(f"_pytest.{plugin}" for plugin in default_plugins)]:
        importlib.import_module(name)
    rehearse()


def freeze_imported() -> None:
    """Exclude all imported objects from later garbage collections, which would write to pages that copies share."""
    gc.collect()
    gc.freeze()


def main() -> None:
    """Run the protocol with one host."""
    answer_wakes()
    port = open_port(PORT_NAME)
    if "--prepare" in sys.argv[1:]:
        prepare()
    worker = Worker()
    freeze_imported()
    Path("/dev/kmsg").write_text("<1>harness: ready\n")
    write_all(port, json.dumps({"release": os.uname().release}).encode() + b"\n")
    mount_project()
    header = take(port)
    # the engine's path for this process and for every Python that a test starts
    sys.path.insert(0, header["path"])
    os.environ["PYTHONPATH"] = header["path"]
    if header["rehearse"] is not None:
        rehearse_project(header["rehearse"]["pytest"], header["rehearse"]["modules"])
        freeze_imported()
        write_all(port, b"prepared\n")
    header = take(port)
    os.environ.update(json.loads(Path(LIMITS).read_text()))
    random.seed(os.urandom(32))
    # 60 kB: read as a line, byte by byte, it takes an emulated guest most of a second
    bootstrap = bytes(read_exactly(port, header["bootstrap"]))
    os.dup2(port, 0)
    os.dup2(port, 1)
    os.close(port)
    # The console gets what tests and tools print: execnet replaces descriptors 0 and 1 and keeps 2.
    sys.stdin = os.fdopen(0, "r", closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    worker.serve(bootstrap)


if __name__ == "__main__":
    main()
