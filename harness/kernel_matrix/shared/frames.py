"""What a terminal of the host and a command in a guest say to each other. Pure, for both sides.

A frame is its kind, the length of what it says, and that. The host begins with BEGIN, the guest ends with EXIT; between
them bytes go both ways. The host sends no more than WINDOW bytes of input that the guest has not taken.
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
#: guest to host: the command's output, and what it says on its error output where that is another
OUTPUT, ERROR = b"o", b"e"
#: guest to host: how many bytes of input were taken; none: only that the guest is alive
TAKEN = b"t"
#: guest to host: the last frame, the command's exit status
EXIT = b"x"

#: bytes of input on their way
WINDOW = 1 << 18
#: seconds after which the guest says at least that it is alive
BEAT = 1.0

#: What is said before the first frame, each in the form of an execnet message, so that a guest that has answered can be
#: saved as a worker that has collected is (kernel_matrix.relay.preamble): code CHANNEL_DATA, channel, bytes of the
#: payload, payload.
OPENING = struct.pack("!bii", 4, 0, 0)
ANSWER = struct.pack("!bii", 4, 0, 16) + b"collectionfinish"

_HEADER = struct.Struct("!cI")
_NUMBER = struct.Struct("!I")
_SIZE = struct.Struct("!HH")


@dataclass(frozen=True, slots=True)
class Begin:
    """What is to be run."""

    #: one word is a line for a shell, several are a program and its arguments, none is a shell to type into
    command: tuple[str, ...]
    #: rows and columns of the terminal; None: there is none, input and output are pipes
    size: tuple[int, int] | None = None
    #: the terminal's kind, as in TERM
    term: str = "dumb"

    def encoded(self) -> bytes:
        """Return it as a frame."""
        return frame(BEGIN, json.dumps([self.command, self.size, self.term]).encode())

    @classmethod
    def of(cls, payload: bytes) -> Begin:
        """Read what `encoded` wrote."""
        command, size, term = json.loads(payload)
        return cls(tuple(command), None if size is None else (size[0], size[1]), term)


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return _HEADER.pack(kind, len(payload)) + payload


def number(kind: bytes, value: int) -> bytes:
    """Return a frame that says a number."""
    return frame(kind, _NUMBER.pack(value))


def number_of(payload: bytes) -> int:
    """Read a number."""
    value: int = _NUMBER.unpack(payload)[0]
    return value


def size(rows: int, columns: int) -> bytes:
    """Return the frame of a terminal's size."""
    return frame(SIZE, _SIZE.pack(rows, columns))


def size_of(payload: bytes) -> Sequence[int]:
    """Read rows and columns."""
    return _SIZE.unpack(payload)


class Reader:
    """Takes bytes as they come and gives whole frames."""

    def __init__(self) -> None:
        self._heard = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the kind and content of each frame that is whole now."""
        self._heard += data
        while len(self._heard) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._heard)
            end = _HEADER.size + length
            if len(self._heard) < end:
                return
            payload = bytes(self._heard[_HEADER.size : end])
            del self._heard[:end]
            yield kind, payload
