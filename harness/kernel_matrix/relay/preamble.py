"""Find where the controller's preamble to a worker ends, and where the worker's answer to it ends. Pure.

The preamble is what xdist sends without waiting for an answer: execnet's bootstrap line, a message with the program to
run, and one with the worker's input. The same command line and kernel give the same preamble, so a worker that has
answered can be saved, and later workers restored from it, after its answer.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

#: execnet.gateway_base.Message.to_io: code, channel, size of the payload in bytes
_HEADER = struct.Struct("!bii")
_CHANNEL_DATA = 4
#: the last message of a gateway, GATEWAY_TERMINATE, without channel and payload
FAREWELL = _HEADER.pack(2, 0, 0)
#: xdist.remote.WorkerInteractor.pytest_collection_finish
_COLLECTED = b"collectionfinish"
#: the worker's name at the end of the bootstrap line, which execnet numbers
_NAME = re.compile(rb"gw\d+(?=-worker)")


def without_name(bootstrap: bytes | bytearray) -> bytes:
    """Replace the worker's name in a bootstrap line, so that the line is the same for every worker."""
    return _NAME.sub(b"guest", bootstrap)


def end(sent: bytes | bytearray) -> int | None:
    """Return where the preamble ends in what the controller has sent so far, None when it is incomplete."""
    line = sent.find(b"\n") + 1
    if line == 0:
        return None
    return next((stop for code, _, stop in _messages(sent, line) if code == _CHANNEL_DATA), None)


def answered(received: bytes | bytearray) -> bool:
    """Whether the worker has reported its collection; the first byte is its answer to the bootstrap line."""
    return any(
        code == _CHANNEL_DATA and _COLLECTED in received[start:stop] for code, start, stop in _messages(received, 1)
    )


def _messages(data: bytes | bytearray, at: int) -> Iterator[tuple[int, int, int]]:
    """Yield the code, start and end of each whole message from ``at`` on."""
    while at + _HEADER.size <= len(data):
        code, _, size = _HEADER.unpack_from(data, at)
        stop = at + _HEADER.size + size
        if stop > len(data):
            return
        yield code, at + _HEADER.size, stop
        at = stop
