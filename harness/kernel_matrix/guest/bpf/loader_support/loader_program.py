"""A loader in another language: a program that loads, attaches and reads for a test (harness/loaders/PROTOCOL.md).

One process serves a whole test file. It may hang, die, or break the protocol at any moment: then `LoaderLost` says so
in that test, the process is killed and reaped, and the next object gets a new one.
"""

from __future__ import annotations

import errno
import json
import os
import select
import subprocess
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar, get_args

from kernel_matrix.guest.bpf import loaders
from kernel_matrix.guest.bpf.btf import Layout
from kernel_matrix.guest.bpf.object_file import ObjectFile, object_file
from kernel_matrix.guest.bpf.step_error import Stage, StepError
from kernel_matrix.guest.bpf.steps import XdpFlags
from kernel_matrix.guest.system.deadline import declared, limit
from kernel_matrix.shared.project import loader_program

_R = TypeVar("_R")
#: of harness/loaders/PROTOCOL.md
PROTOCOL = 1
#: seconds that a reply may take on the reference machine: the slowest, loading 36 programs, takes one
_REPLY = 20.0
_MODES = {XdpFlags.NONE: "default", XdpFlags.NATIVE: "native", XdpFlags.GENERIC: "generic"}
_LAST_LINES = 5


class LoaderLost(Exception):
    """A loader's program ended, hung or broke the protocol; it is gone, and with it all that it held."""


class Process:
    """A running loader program."""

    def __init__(self, name: str, program: Path) -> None:
        self._name = name
        self._number = 0
        # a file, not a pipe: nobody reads it before the end, and a full pipe would stop the program. In memory: a user
        # may write nowhere
        self._messages: IO[bytes] = open(os.memfd_create(name), "w+b")  # noqa: SIM115, PTH123 - closed in `end`
        #: the network namespace that it runs in
        self.namespace = _namespace()
        self._buffer = bytearray()
        try:
            self._process = subprocess.Popen(
                [str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._messages, bufsize=0
            )
        except FileNotFoundError as error:
            self._messages.close()
            why = "the run carries it where a selected test file, or a conftest above one, names the fixture `loader`"
            raise LoaderLost(f"{name}: its program is not in this guest: {why}") from error
        except OSError as error:
            self._messages.close()
            raise LoaderLost(f"{name}: {program}: {error.strerror}") from error
        #: the process that started it: the requests of a fork would mix with its own
        self._owner = os.getpid()
        try:
            self.version = self._greeting()
        except LoaderLost:
            self._close()
            raise

    @property
    def alive(self) -> bool:
        """Whether it can take requests."""
        return self._process.returncode is None and self._process.poll() is None

    def request(self, do: str, **fields: object) -> dict[str, Any]:
        """Send one request and return its result.

        Raises StepError for a refused step, LoaderLost when no valid reply comes.
        """
        if os.getpid() != self._owner:
            raise RuntimeError(f"{self._name}: its program belongs to the process that started it, not to a fork of it")
        if not self.alive:
            raise LoaderLost(f"{self._name}: {do}: its program is gone")
        self._number += 1
        line = json.dumps({"id": self._number, "do": do, **fields}) + "\n"
        try:
            self._send(line.encode(), do)
        except OSError as error:
            raise self._lost(do, f"does not take requests: {error.strerror}") from error
        reply = self._reply(do)
        if reply.get("id") != self._number or "malformed" in reply:
            raise self._lost(do, f"answered {json.dumps(reply)[:500]}")
        if "error" in reply:
            raise self._refusal(do, reply["error"])
        if not isinstance(reply.get("result"), dict):
            raise self._lost(do, f"answered {json.dumps(reply)[:500]}")
        result: dict[str, Any] = reply["result"]
        return result

    def end(self) -> None:
        """End it as its client's end would: end of file; kill it when it goes on. Nothing is left of it."""
        if self.alive:
            assert self._process.stdin is not None
            self._process.stdin.close()
            with declared():
                try:
                    self._process.wait(limit(_REPLY))
                except subprocess.TimeoutExpired:
                    self.kill()
        self._close()

    def kill(self) -> None:
        """Kill and reap it."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def _close(self) -> None:
        for file in (self._process.stdin, self._process.stdout, self._messages):
            if file is not None:
                # a request that was not taken is still in no buffer: bufsize is 0
                file.close()

    def _send(self, data: bytes, do: str) -> None:
        assert self._process.stdin is not None
        fd, end = self._process.stdin.fileno(), time.monotonic() + limit(_REPLY)
        os.set_blocking(fd, False)
        with declared():
            while data:
                if not select.select([], [fd], [], max(0.0, end - time.monotonic()))[1]:
                    raise self._lost(do, f"took no request within {limit(_REPLY):.0f} s")
                data = data[os.write(fd, data) :]

    def _reply(self, do: str) -> dict[str, Any]:
        """Return the next line as an object."""
        line = self._line(do)
        try:
            reply = json.loads(line)
        except ValueError as error:
            raise self._lost(do, f"wrote no JSON: {line[:200]!r}") from error
        if not isinstance(reply, dict):
            raise self._lost(do, f"wrote no object: {line[:200]!r}")
        return reply

    def _line(self, do: str) -> bytes:
        assert self._process.stdout is not None
        fd, end = self._process.stdout.fileno(), time.monotonic() + limit(_REPLY)
        searched = 0
        with declared():
            while (position := self._buffer.find(b"\n", searched)) < 0:
                searched = len(self._buffer)
                if not select.select([fd], [], [], max(0.0, end - time.monotonic()))[0]:
                    raise self._lost(do, f"gave no reply within {limit(_REPLY):.0f} s")
                part = os.read(fd, 1 << 16)
                if not part:
                    self._process.wait()
                    raise self._lost(do, f"ended with status {self._process.returncode}")
                self._buffer += part
        line = bytes(self._buffer[:position])
        del self._buffer[: position + 1]
        return line

    def _greeting(self) -> str:
        greeting = self._reply("its first line")
        if greeting.get("protocol") != PROTOCOL:
            raise self._lost("its first line", f"speaks protocol {greeting.get('protocol')!r}, not {PROTOCOL}")
        if greeting.get("loader") != self._name or not isinstance(greeting.get("version"), str):
            raise self._lost("its first line", f"is another program: {json.dumps(greeting)[:200]}")
        return str(greeting["version"])

    def _refusal(self, do: str, error: object) -> StepError | LoaderLost:
        fields: dict[str, type] = {"stage": str, "errno": int, "what": str, "message": str, "log": str}
        if not isinstance(error, dict) or any(not isinstance(error.get(key), kind) for key, kind in fields.items()):
            return self._lost(do, f"answered with the error {json.dumps(error)[:500]}")
        if error["stage"] not in get_args(Stage):
            return self._lost(do, f"names the stage {error['stage']!r}")
        log = "\n".join(filter(None, (f"{self._name}: {error['message']}", error["log"])))
        return StepError(error["errno"], error["stage"], error["what"], log)

    def _lost(self, do: str, what: str) -> LoaderLost:
        self.kill()
        self._messages.seek(0)
        lines = self._messages.read().decode(errors="replace").splitlines()[-_LAST_LINES:]
        return LoaderLost("\n".join([f"{self._name}: {do}: its program {what}", *lines]))


class _Map:
    """A map of a loaded object."""

    def __init__(self, process: Process, number: int, name: str, key_size: int) -> None:
        self._process, self._key_size = process, key_size
        self._map = {"object": number, "map": name}

    def get(self, key: int) -> bytes | None:
        value = self._process.request("get", **self._map, key=self._key(key))["value"]
        return None if value is None else bytes.fromhex(value)

    def get_each_cpu(self, key: int) -> tuple[bytes, ...]:
        values = self._process.request("get_each_cpu", **self._map, key=self._key(key))["values"]
        return tuple(bytes.fromhex(value) for value in values or ())

    def put(self, key: int, value: bytes) -> None:
        self._process.request("put", **self._map, key=self._key(key), value=value.hex())

    def keys(self) -> Iterator[int]:
        for key in self._process.request("keys", **self._map)["keys"]:
            yield int.from_bytes(bytes.fromhex(key), "little")

    def _key(self, key: int) -> str:
        return key.to_bytes(self._key_size, "little").hex()


class _RingBuffer:
    """The program's end of a ring buffer."""

    def __init__(self, process: Process, ring: int) -> None:
        self._process, self._ring = process, ring

    def consume(self) -> list[bytes]:
        return [bytes.fromhex(record) for record in self._process.request("consume", ring=self._ring)["records"]]


class _Object:
    """An object that the program has loaded."""

    def __init__(self, process: Process, number: int, file: ObjectFile, maps: dict[str, dict[str, int]]) -> None:
        self._process, self._number, self._file, self._maps = process, number, file, maps

    def layout(self, struct: str, record: type[_R]) -> Layout[_R]:
        return Layout.of(self._file.btf, struct, record)

    def map(self, name: str) -> _Map:
        if name not in self._maps:
            raise KeyError(f"the object has no map {name}")
        return _Map(self._process, self._number, name, self._maps[name]["key"])

    def ring_buffer(self, name: str) -> _RingBuffer:
        if name not in self._maps:
            raise KeyError(f"the object has no map {name}")
        return _RingBuffer(self._process, self._process.request("ring_buffer", object=self._number, map=name)["ring"])

    def attach(self, *names: str) -> ExitStack:
        links = ExitStack()
        for name, section in self._file.sections.items():
            if not names or name in names:
                self._attach(links, name, _target(name, section))
        return links

    def attach_kprobe(self, name: str, symbol: str) -> ExitStack:
        return self._attached(name, {"kprobe": symbol})

    def attach_tracepoint(self, name: str, category: str, event: str) -> ExitStack:
        return self._attached(name, {"tracepoint": {"category": category, "name": event}})

    def _attached(self, name: str, target: dict[str, object]) -> ExitStack:
        links = ExitStack()
        self._attach(links, name, target)
        return links

    def attach_xdp(self, name: str, ifindex: int, mode: XdpFlags) -> ExitStack:
        # of this thread: a test enters a namespace with one thread. Entering it takes CAP_SYS_ADMIN, so a program that
        # is in it already is not asked to
        here = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"
        namespace = None if _namespace() == self._process.namespace else here
        return self._attached(name, {"xdp": {"ifindex": ifindex, "mode": _MODES[mode], "netns": namespace}})

    def test_run(self, name: str, data: bytes) -> tuple[int, bytes]:
        result = self._process.request("test_run", object=self._number, program=name, data=data.hex())
        return result["verdict"], bytes.fromhex(result["data"])

    def _attach(self, links: ExitStack, name: str, target: dict[str, object]) -> None:
        link = self._process.request("attach", object=self._number, program=name, target=target)["link"]
        links.callback(self._detach, link)

    def _detach(self, link: int) -> None:
        # a program that is gone has detached everything, or has left it: the leak check looks
        if self._process.alive:
            self._process.request("detach", link=link)


def _namespace() -> int:
    """Return the number of this thread's network namespace."""
    return os.stat("/proc/thread-self/ns/net").st_ino  # noqa: PTH116 - a Path would take longer under emulation


def _target(name: str, section: str) -> dict[str, object]:
    """Return the target that a section names; raises StepError for a section without one."""
    kind, _, rest = section.partition("/")
    if kind == "kprobe" and rest:
        return {"kprobe": rest}
    if kind in {"tp", "tracepoint"} and "/" in rest:
        category, _, event = rest.partition("/")
        return {"tracepoint": {"category": category, "name": event}}
    raise StepError(errno.EINVAL, "attach", f"{name}: section {section!r} names no target that loader programs know")


class ProgramLoader:
    """A loader whose program was built from harness/loaders; its process starts with the first object."""

    def __init__(self, name: str, program: Path | None = None) -> None:
        self.name = name
        self._program = program or loader_program(name)
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        """The running program; a new one when there is none, or the last one is gone."""
        if self._process is not None and not self._process.alive:
            self.close()
        if self._process is None:
            self._process = Process(self.name, self._program)
        return self._process

    @property
    def version(self) -> str:
        """The library's version."""
        return self.process.version

    def opened(
        self, path: Path, *, max_entries: dict[str, int] | None = None
    ) -> AbstractContextManager[loaders.Object]:
        """Open and load an object, as `Loader` specifies."""
        return self._opened(path, max_entries or {})

    @contextmanager
    def _opened(self, path: Path, max_entries: dict[str, int]) -> Generator[_Object]:
        process = self.process
        # the program first: what is no object is its own refusal, not libbpf's
        result = process.request("open", path=str(path), max_entries=max_entries)
        number = result["object"]
        try:
            with object_file(path) as file:
                process.request("load", object=number, program=None)
                yield _Object(process, number, file, result["maps"])
        finally:
            if process.alive:
                process.request("close", object=number)

    def close(self) -> None:
        """End the program, which detaches and closes all it holds."""
        if self._process is not None:
            self._process.end()
            self._process = None
