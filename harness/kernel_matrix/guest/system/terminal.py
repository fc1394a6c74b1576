"""A command in the guest, with a terminal of its own or with pipes, served to the host in frames."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator

from kernel_matrix.guest import agent
from kernel_matrix.guest.system import child
from kernel_matrix.shared import frames
from kernel_matrix.shared.errors import ignoring
from kernel_matrix.shared.frames import Begin, Reader

_CHUNK = 1 << 16
#: chunks of output that are read once the command has ended: more than any pipe or terminal holds
_REST = 32
#: what a shell says of a program that it does not find, and of one that it may not execute
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126


class Served:
    """One command, from its start to its exit status."""

    def __init__(self, begin: Begin) -> None:
        """Start it; raises OSError when there is no such program."""
        words = child.words(begin.command)
        environment = child.environment(begin.term)
        self._terminal: int | None = None
        #: its output's descriptors, and the kind of frame each becomes
        self.outputs: dict[int, bytes] = {}
        self.input: int | None = None
        self._waiting = bytearray()
        self._ended = False
        if begin.size is None:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                words, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, start_new_session=True, bufsize=0
            )
            for stream, kind in ((self._process.stdout, frames.OUTPUT), (self._process.stderr, frames.ERROR)):
                assert stream is not None
                self.outputs[stream.fileno()] = kind
            assert self._process.stdin is not None
            self.input = self._process.stdin.fileno()
        else:
            self._terminal, other = os.openpty()
            self.resize(*begin.size)
            # it must not lead a group yet: setsid would fork, and the command would be another process
            self._process = subprocess.Popen(
                ["setsid", "--ctty", *words], stdin=other, stdout=other, stderr=other, env=environment
            )
            os.close(other)
            self.outputs[self._terminal] = frames.OUTPUT
            self.input = self._terminal
        for descriptor in {*self.outputs, self.input}:
            os.set_blocking(descriptor, False)
        self.end = os.pidfd_open(self._process.pid)

    def resize(self, rows: int, columns: int) -> None:
        """Give the terminal another size; the kernel tells the command."""
        if self._terminal is not None:
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def take(self, data: bytes) -> None:
        """Take input; empty: no more comes."""
        self._waiting += data
        self._ended = self._ended or not data

    @property
    def writing(self) -> list[int]:
        """The input's descriptor, when there is something to do there."""
        return [self.input] if self.input is not None and (self._waiting or self._ended) else []

    def write(self) -> int:
        """Pass on input; return how many bytes need no more room: taken, or no longer wanted."""
        assert self.input is not None
        try:
            count = os.write(self.input, self._waiting[:_CHUNK]) if self._waiting else 0
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno not in {errno.EPIPE, errno.EIO}:  # a pipe, a terminal that nobody reads any more
                raise
            count, self._ended = len(self._waiting), True
        del self._waiting[:count]
        if self._ended and not self._waiting:
            self._end_input()
        return count

    def _end_input(self) -> None:
        if self._terminal is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
        else:  # what Ctrl-D does
            self._waiting += termios.tcgetattr(self._terminal)[6][termios.VEOF]
            # it has no room for more, or nobody reads it any more
            with ignoring(errno.EAGAIN, errno.EIO):
                os.write(self._terminal, self._waiting)
            self._waiting.clear()
        self.input = None

    def read(self, descriptor: int) -> bytes:
        """Return what the command has said there; its end takes the descriptor away."""
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return b""
        except OSError as error:
            if error.errno != errno.EIO:  # nobody has the other end of the terminal any more
                raise
            data = b""
        if not data:
            del self.outputs[descriptor]
        return data

    def status(self) -> int:
        """Return the exit status of a command that has ended."""
        return child.status(self._process.wait())

    def rest(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield what is left of its output; what it leaves running may go on writing, and is not waited for."""
        for descriptor, kind in list(self.outputs.items()):
            for _ in range(_REST):
                if not (data := self.read(descriptor)):
                    break
                yield kind, data

    def kill(self) -> None:
        """End the command; its terminal's end tells the rest of its session."""
        with contextlib.suppress(ProcessLookupError):
            if (group := os.getpgid(self._process.pid)) != os.getpgrp():
                os.killpg(group, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self.close()

    def close(self) -> None:
        """Close what is still open here."""
        os.close(self.end)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        if self._terminal is not None:
            os.close(self._terminal)


def serve(reader: int, writer: int, data: bytes = b"") -> bool:
    """Serve one command, whose first words may have been read; return whether the host stayed until its end."""
    said = Reader()
    heard = list(said.feed(data))
    while not heard:
        if not (data := os.read(reader, _CHUNK)):
            return False
        heard += said.feed(data)
    begin = Begin.of(heard.pop(0)[1])
    _write(writer, frames.number(frames.TAKEN, 0))
    try:
        served = Served(begin)
    except OSError as error:
        return _refused(writer, begin, error)
    for kind, payload in heard:
        _hear(served, kind, payload)
    try:
        stayed = _pump(served, said, reader, writer)
    except (BrokenPipeError, ConnectionResetError):
        stayed = False
    except BaseException:
        served.kill()
        raise
    if not stayed:
        served.kill()
        return False
    status = served.status()
    for kind, data in served.rest():
        _write(writer, frames.frame(kind, data))
    served.close()
    _write(writer, frames.number(frames.EXIT, status))
    return True


def _refused(writer: int, begin: Begin, error: OSError) -> bool:
    line = f"{child.words(begin.command)[0]}: {error.strerror}\n"
    _write(writer, frames.frame(frames.ERROR, line.encode()))
    status = _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
    _write(writer, frames.number(frames.EXIT, status))
    return True


def _hear(served: Served, kind: bytes, payload: bytes) -> None:
    if kind == frames.INPUT:
        served.take(payload)
    elif kind == frames.SIZE:
        served.resize(*frames.size_of(payload))


def _pump(served: Served, said: Reader, reader: int, writer: int) -> bool:
    """Carry bytes until the command has ended; return whether the host is still there."""
    while True:
        ready, writable, _ = select.select([reader, served.end, *served.outputs], served.writing, [], frames.BEAT)
        if not (ready or writable):
            _write(writer, frames.number(frames.TAKEN, 0))
        if reader in ready:
            if not (data := os.read(reader, _CHUNK)):
                return False
            for kind, payload in said.feed(data):
                _hear(served, kind, payload)
        if writable and (count := served.write()):
            _write(writer, frames.number(frames.TAKEN, count))
        for descriptor in [each for each in served.outputs if each in ready]:
            kind = served.outputs[descriptor]
            if data := served.read(descriptor):
                _write(writer, frames.frame(kind, data))
        if served.end in ready:
            return True


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def main() -> None:
    """Serve one command on standard input and output, as the agent's worker (kernel_matrix.commands.shell)."""
    child.carried()
    agent.read_exactly(0, len(frames.PREAMBLE))
    # the relay drops the first byte: the answer to a bootstrap line
    _write(1, b"1" + frames.ANSWER)
    serve(0, 1)
