"""How a controller opens a conversation with a worker, and the worker's answer: where each ends. Pure.

xdist opens without waiting for an answer: execnet's bootstrap line, a message with the program to run, and one with the
worker's input. What it says is the same for the same command line and kernel, so a worker that has answered can be
saved, and every later one restored behind its answer.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

#: execnet.gateway_base.Message.to_io: code, channel, bytes of the payload
_HEADER = struct.Struct("!bii")
_CHANNEL_DATA = 4
#: the last message of a gateway's life, GATEWAY_TERMINATE: it has no channel and no payload
FAREWELL = _HEADER.pack(2, 0, 0)
#: xdist.remote.WorkerInteractor.pytest_collection_finish
_COLLECTED = b"collectionfinish"
#: the worker's name at the end of the bootstrap line: a number that execnet counts up
_NAME = re.compile(rb"gw\d+(?=-worker)")


def without_name(bootstrap: bytes | bytearray) -> bytes:
    """Return a bootstrap line that is the same for every worker."""
    return _NAME.sub(b"guest", bootstrap)


def end(said: bytes | bytearray) -> int | None:
    """Return where the opening ends in what the controller has said so far; None when it has not ended."""
    line = said.find(b"\n") + 1
    if line == 0:
        return None
    return next((stop for code, _, stop in _messages(said, line) if code == _CHANNEL_DATA), None)


def answered(said: bytes | bytearray) -> bool:
    """Whether the worker has said what it collected; the first byte is its answer to the bootstrap line."""
    return any(code == _CHANNEL_DATA and _COLLECTED in said[start:stop] for code, start, stop in _messages(said, 1))


def _messages(data: bytes | bytearray, at: int) -> Iterator[tuple[int, int, int]]:
    """Yield the code, start and end of each whole message from ``at`` on."""
    while at + _HEADER.size <= len(data):
        code, _, size = _HEADER.unpack_from(data, at)
        stop = at + _HEADER.size + size
        if stop > len(data):
            return
        yield code, at + _HEADER.size, stop
        at = stop
