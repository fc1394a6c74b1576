"""The user's side of a command in a guest: their terminal, or pipes, at this end (kernel_matrix.shared.frames)."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from kernel_matrix.shared import frames
from kernel_matrix.shared.frames import Begin, Reader

_CHUNK = 1 << 16
#: what a shell calls a program whose reader has gone: 128 and SIGPIPE
_NO_READER = 141


class GuestGone(Exception):
    """The connection ended before the command did."""


class _Left(BaseException):
    """The process was told to end; the terminal must be put back first."""


def interactive() -> bool:
    """Whether a person types and reads here."""
    return os.isatty(0) and os.isatty(1)


def converse(reader: int, writer: int, command: Sequence[str], ready: Callable[[], None] = lambda: None) -> int:
    """Run a command at the other end of a connection and return its exit status; raises GuestGone.

    The terminal is the command's from the guest's first word on: until then Ctrl-C ends this, afterwards that. Then
    ``ready`` is called.
    """
    size = os.get_terminal_size() if interactive() else None
    begin = Begin(
        tuple(command),
        None if size is None else (size.lines, size.columns),
        os.environ.get("TERM", "dumb"),
    )
    conversation = _Conversation(reader, writer, begin, ready)
    with contextlib.ExitStack() as stack:
        for number in (signal.SIGTERM, signal.SIGHUP):
            stack.callback(signal.signal, number, signal.signal(number, _leave))
        try:
            return conversation.run(stack)
        except _Left as left:
            return 128 + int(left.args[0])


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's signature
    raise _Left(number)


class _Conversation:
    def __init__(self, reader: int, writer: int, begin: Begin, ready: Callable[[], None]) -> None:
        self._reader = reader
        self._writer = writer
        self._ready = ready
        self._terminal = begin.size is not None
        self._to_guest = bytearray(begin.encoded())
        self._input_open = True
        self._window = frames.WINDOW
        self._said = Reader()
        os.set_blocking(writer, False)

    def run(self, stack: contextlib.ExitStack) -> int:
        """Carry bytes until the command has ended; what ``stack`` takes puts the terminal back."""
        resized, trigger = os.pipe()
        stack.callback(os.close, resized)
        stack.callback(os.close, trigger)
        begun = False
        while True:
            reading = begun and self._input_open and self._window
            ready, writable, _ = select.select(
                [self._reader, resized, *([0] if reading else [])], [self._writer] if self._to_guest else [], []
            )
            if resized in ready:
                os.read(resized, _CHUNK)
                size = os.get_terminal_size()
                self._to_guest += frames.size(size.lines, size.columns)
            if 0 in ready:
                self._take_input()
            if writable:
                self._send()
            if self._reader not in ready:
                continue
            data = self._receive()
            if not begun:
                begun = True
                self._begin(stack, trigger)
            if (status := self._heard(data)) is not None:
                return status

    def _begin(self, stack: contextlib.ExitStack, trigger: int) -> None:
        """Leave the terminal to the command."""
        self._ready()
        if self._terminal:
            stack.enter_context(_raw(trigger))

    def _heard(self, data: bytes) -> int | None:
        """Do what the guest has said; return the status to end with, None to go on."""
        for kind, payload in self._said.feed(data):
            if kind == frames.EXIT:
                return frames.number_of(payload)
            if not self._hear(kind, payload):
                return _NO_READER
        return None

    def _take_input(self) -> None:
        try:
            data = os.read(0, min(_CHUNK, self._window))
        except OSError as error:
            if error.errno != errno.EIO:  # the terminal is gone
                raise
            data = b""
        self._input_open = bool(data)
        self._window -= len(data)
        self._to_guest += frames.frame(frames.INPUT, data)

    def _send(self) -> None:
        try:
            del self._to_guest[: os.write(self._writer, self._to_guest)]
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):  # its end is read, too
            self._to_guest.clear()

    def _receive(self) -> bytes:
        try:
            data = os.read(self._reader, _CHUNK)
        except ConnectionResetError:
            data = b""
        if not data:
            raise GuestGone
        return data

    def _hear(self, kind: bytes, payload: bytes) -> bool:
        """Do what a frame says; return whether there is still somebody to read the output."""
        if kind == frames.TAKEN:
            self._window += frames.number_of(payload)
            return True
        try:
            view = memoryview(payload)
            while view:
                view = view[os.write(2 if kind == frames.ERROR else 1, view) :]
        except BrokenPipeError:
            return False
        return True


@contextlib.contextmanager
def _raw(trigger: int) -> Iterator[None]:
    """Let the command have every key, and learn of the terminal's new sizes; put it back in any case."""
    before = termios.tcgetattr(0)
    handler = signal.signal(signal.SIGWINCH, lambda *_: os.write(trigger, b"!") and None)
    try:
        tty.setraw(0, termios.TCSANOW)
        yield
    finally:
        signal.signal(signal.SIGWINCH, handler)
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        sys.stdout.flush()
