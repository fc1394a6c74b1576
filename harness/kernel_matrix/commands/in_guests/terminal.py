"""The host's side of a command in a guest: the user's terminal or pipes (kernel_matrix.shared.channel.frames)."""

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

from kernel_matrix.shared.channel import frames
from kernel_matrix.shared.channel.frames import Begin, Reader

_CHUNK = 1 << 16
#: the exit status of a program whose reader is gone, as in a shell: 128 and SIGPIPE
_NO_READER = 141


class GuestGone(Exception):
    """The connection ended before the command."""


class _Terminated(BaseException):
    """A signal asks this process to end; the terminal must be restored first."""


def interactive() -> bool:
    """Whether standard input and output are terminals."""
    return os.isatty(0) and os.isatty(1)


def run_command(reader: int, writer: int, command: Sequence[str], ready: Callable[[], None] = lambda: None) -> int:
    """Run a command at the other end of a connection and return its exit status; raises GuestGone.

    With the guest's first output ``ready`` is called and the terminal belongs to the command: before that Ctrl-C ends
    this process, afterwards the command.
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
        except _Terminated as left:
            return 128 + int(left.args[0])


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler's signature
    raise _Terminated(number)


class _Conversation:
    def __init__(self, reader: int, writer: int, begin: Begin, ready: Callable[[], None]) -> None:
        self._reader = reader
        self._writer = writer
        self._ready = ready
        self._terminal = begin.size is not None
        self._to_guest = bytearray(begin.encoded())
        self._input_open = True
        self._window = frames.WINDOW
        self._frames = Reader()
        os.set_blocking(writer, False)

    def run(self, stack: contextlib.ExitStack) -> int:
        """Transfer data until the command has ended; ``stack`` restores the terminal."""
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
            if (status := self._handle_data(data)) is not None:
                return status

    def _begin(self, stack: contextlib.ExitStack, trigger: int) -> None:
        """Hand the terminal over to the command."""
        self._ready()
        if self._terminal:
            stack.enter_context(_raw(trigger))

    def _handle_data(self, data: bytes) -> int | None:
        """Handle the guest's frames; return the exit status, None to continue."""
        for kind, payload in self._frames.feed(data):
            if kind == frames.EXIT:
                return frames.number_of(payload)
            if not self._handle_frame(kind, payload):
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
        except (BrokenPipeError, ConnectionResetError):  # the end of its output is read, too
            self._to_guest.clear()

    def _receive(self) -> bytes:
        try:
            data = os.read(self._reader, _CHUNK)
        except ConnectionResetError:
            data = b""
        if not data:
            raise GuestGone
        return data

    def _handle_frame(self, kind: bytes, payload: bytes) -> bool:
        """Handle a frame; return whether the output still has a reader."""
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
    """Set the terminal to raw mode and watch its size; restore it in any case."""
    before = termios.tcgetattr(0)
    handler = signal.signal(signal.SIGWINCH, lambda *_: os.write(trigger, b"!") and None)
    try:
        tty.setraw(0, termios.TCSANOW)
        yield
    finally:
        signal.signal(signal.SIGWINCH, handler)
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        sys.stdout.flush()
