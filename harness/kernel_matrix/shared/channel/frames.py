"""The protocol between a terminal on the host and a command in a guest. Pure, for both sides.

A frame is a kind, the length of its payload, and the payload. The host begins with BEGIN, the guest ends with EXIT;
between them, frames go both ways. The host sends at most WINDOW bytes of input that the guest has not acknowledged.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

#: host to guest: the first frame, a `Begin`
BEGIN = b"b"
#: host to guest: input; empty: its end
INPUT = b"i"
#: host to guest: the terminal's new size
SIZE = b"s"
#: guest to host: the command's output, and its error output when that is separate
OUTPUT, ERROR = b"o", b"e"
#: guest to host: the number of input bytes that the command has taken; empty: only a heartbeat
TAKEN = b"t"
#: guest to host: the last frame, the command's exit status
EXIT = b"x"

#: most bytes of input without acknowledgement
WINDOW = 1 << 18
#: seconds between heartbeats of the guest
BEAT = 1.0

#: What each side sends before the first frame, in the form of an execnet message (code CHANNEL_DATA, channel, size of
#: the payload, payload): a guest that has answered can be saved like a worker that has collected
#: (kernel_matrix.relay.preamble).
PREAMBLE = struct.pack("!bii", 4, 0, 0)
ANSWER = struct.pack("!bii", 4, 0, 16) + b"collectionfinish"

_HEADER = struct.Struct("!cI")
_NUMBER = struct.Struct("!I")
_SIZE = struct.Struct("!HH")


@dataclass(frozen=True, slots=True)
class Begin:
    """The command to run."""

    #: one word is a line for a shell, several are a program and its arguments, none is an interactive shell
    command: tuple[str, ...]
    #: rows and columns of the terminal; None: no terminal, input and output are pipes
    size: tuple[int, int] | None = None
    #: the terminal's type, as in TERM
    term: str = "dumb"

    def encoded(self) -> bytes:
        """Return the command as a frame."""
        return frame(BEGIN, json.dumps([self.command, self.size, self.term]).encode())

    @classmethod
    def of(cls, payload: bytes) -> Begin:
        """Read the payload of such a frame."""
        command, size, term = json.loads(payload)
        return cls(tuple(command), None if size is None else (size[0], size[1]), term)


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return _HEADER.pack(kind, len(payload)) + payload


def number(kind: bytes, value: int) -> bytes:
    """Return a frame whose payload is a number."""
    return frame(kind, _NUMBER.pack(value))


def number_of(payload: bytes) -> int:
    """Return the number in a payload."""
    value: int = _NUMBER.unpack(payload)[0]
    return value


def size(rows: int, columns: int) -> bytes:
    """Return a frame with a terminal's size."""
    return frame(SIZE, _SIZE.pack(rows, columns))


def size_of(payload: bytes) -> Sequence[int]:
    """Return the rows and columns in a payload."""
    return _SIZE.unpack(payload)


class Reader:
    """Splits a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Add bytes; yield kind and payload of each frame that is complete now."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer)
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield kind, payload
