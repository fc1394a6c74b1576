"""Run a command in the guest, on its own terminal or on pipes, and connect it to the host by frames."""

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
from kernel_matrix.guest.system.upkeep import child
from kernel_matrix.shared.channel import frames
from kernel_matrix.shared.channel.frames import Begin, Reader
from kernel_matrix.shared.errors import ignoring

_CHUNK = 1 << 16
#: chunks of output to read after the command has ended: more than any pipe or terminal holds
_REST = 32
#: a shell's exit status for a program that it cannot find, and for one that it cannot execute
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126


class Served:
    """One command, from its start to its exit status."""

    def __init__(self, begin: Begin) -> None:
        """Start the command; raises OSError when there is no such program."""
        words = child.words(begin.command)
        environment = child.environment(begin.term)
        self._terminal: int | None = None
        #: descriptors of its output -> the kind of frame for it
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
            self._terminal, command_end = os.openpty()
            self.resize(*begin.size)
            # it must not lead a process group: setsid would fork, and the command would be another process
            self._process = subprocess.Popen(
                ["setsid", "--ctty", *words], stdin=command_end, stdout=command_end, stderr=command_end, env=environment
            )
            os.close(command_end)
            self.outputs[self._terminal] = frames.OUTPUT
            self.input = self._terminal
        for descriptor in {*self.outputs, self.input}:
            os.set_blocking(descriptor, False)
        self.end = os.pidfd_open(self._process.pid)

    def resize(self, rows: int, columns: int) -> None:
        """Change the terminal's size; the kernel notifies the command."""
        if self._terminal is not None:
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def take(self, data: bytes) -> None:
        """Queue input; empty data is the end of the input."""
        self._waiting += data
        self._ended = self._ended or not data

    @property
    def writing(self) -> list[int]:
        """The input's descriptor, when there is input to write or its end to signal."""
        return [self.input] if self.input is not None and (self._waiting or self._ended) else []

    def write(self) -> int:
        """Write queued input; return how many bytes left the queue, written or discarded."""
        assert self.input is not None
        try:
            count = os.write(self.input, self._waiting[:_CHUNK]) if self._waiting else 0
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno not in {errno.EPIPE, errno.EIO}:  # a pipe or terminal that has no reader any more
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
        else:  # as Ctrl-D does
            self._waiting += termios.tcgetattr(self._terminal)[6][termios.VEOF]
            # it is full, or has no reader any more
            with ignoring(errno.EAGAIN, errno.EIO):
                os.write(self._terminal, self._waiting)
            self._waiting.clear()
        self.input = None

    def read(self, descriptor: int) -> bytes:
        """Return output from a descriptor; remove the descriptor from `outputs` at its end."""
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return b""
        except OSError as error:
            if error.errno != errno.EIO:  # the command_end end of the terminal is closed
                raise
            data = b""
        if not data:
            del self.outputs[descriptor]
        return data

    def status(self) -> int:
        """Return the exit status of a command that has ended."""
        return child.status(self._process.wait())

    def rest(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rest of its output, without waiting for processes that it leaves running."""
        for descriptor, kind in list(self.outputs.items()):
            for _ in range(_REST):
                if not (data := self.read(descriptor)):
                    break
                yield kind, data

    def kill(self) -> None:
        """Kill the command; closing its terminal ends the rest of its session."""
        with contextlib.suppress(ProcessLookupError):
            if (group := os.getpgid(self._process.pid)) != os.getpgrp():
                os.killpg(group, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self.close()

    def close(self) -> None:
        """Close all descriptors."""
        os.close(self.end)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        if self._terminal is not None:
            os.close(self._terminal)


def serve(reader: int, writer: int, data: bytes = b"") -> bool:
    """Serve one command; return whether the host stayed connected until its end.

    ``data``: what has already been read from the host.
    """
    stream = Reader()
    received = list(stream.feed(data))
    while not received:
        if not (data := os.read(reader, _CHUNK)):
            return False
        received += stream.feed(data)
    begin = Begin.of(received.pop(0)[1])
    _write(writer, frames.number(frames.TAKEN, 0))
    try:
        served = Served(begin)
    except OSError as error:
        return _refused(writer, begin, error)
    for kind, payload in received:
        _receive(served, kind, payload)
    try:
        stayed = _pump(served, stream, reader, writer)
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


def _receive(served: Served, kind: bytes, payload: bytes) -> None:
    if kind == frames.INPUT:
        served.take(payload)
    elif kind == frames.SIZE:
        served.resize(*frames.size_of(payload))


def _pump(served: Served, stream: Reader, reader: int, writer: int) -> bool:
    """Carry bytes until the command has ended; return whether the host is still connected."""
    while True:
        ready, writable, _ = select.select([reader, served.end, *served.outputs], served.writing, [], frames.BEAT)
        if not (ready or writable):
            _write(writer, frames.number(frames.TAKEN, 0))
        if reader in ready:
            if not (data := os.read(reader, _CHUNK)):
                return False
            for kind, payload in stream.feed(data):
                _receive(served, kind, payload)
        if writable and (count := served.write()):
            _write(writer, frames.number(frames.TAKEN, count))
        for descriptor in [descriptor for descriptor in served.outputs if descriptor in ready]:
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
    """Serve one command on standard input and output, as the agent's worker (`commands.in_guests.shell`)."""
    child.carried()
    agent.read_exactly(0, len(frames.PREAMBLE))
    # the relay drops the first byte, the answer to a bootstrap line
    _write(1, b"1" + frames.ANSWER)
    serve(0, 1)
