"""System calls on any descriptor with memory of their own: results as the kernel returns them, errors negative.

Python's own functions refuse what is no socket, and do not tell which addresses the kernel has written.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Sequence

from suites.sockets.conftest import Call

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

#: what a call moves at most
LARGEST = 1 << 20
#: room for an address of IPv6, or a short one of a unix socket
ROOM = 28
_data = ctypes.create_string_buffer(LARGEST)
_name = ctypes.create_string_buffer(ROOM)
_length = ctypes.c_uint32()
#: struct iovec, and struct msghdr with the padding behind its two short fields; in a struct mmsghdr a length follows
_VECTOR = struct.Struct("=QQ")
_HEADER = struct.Struct("=QI4xQQQQi4x")
_MESSAGE = struct.Struct("=QI4xQQQQi4xI4x")
_AT_NAME_LENGTH = 8


def call(number: int, *arguments: int) -> int:
    """Make a system call; return its result, or the negative errno."""
    result: int = _libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    return -ctypes.get_errno() if result < 0 else result


def prepared(name: bytes | None = None, room: int | None = None) -> tuple[int, int]:
    """Put an address where the kernel reads it, or room where it writes one; return where that is, and its length."""
    if name is None and room is None:
        return 0, 0
    ctypes.memset(_name, 0, ROOM)
    ctypes.memmove(_name, name or b"", len(name or b""))
    _length.value = len(name) if name is not None else room or 0
    return ctypes.addressof(_name), _length.value


def written(room: int, length: int) -> bytes:
    """Return the address that the kernel has written into the room, where it says that it has that length."""
    return _name.raw[: min(room, length)]


def on_name(function: Call, fd: int, room: int, *more: int) -> tuple[int, bytes]:
    """Make an accept with room for an address; return the result and that address."""
    where, _ = prepared(room=room)
    result = call(function, fd, where, ctypes.addressof(_length), *more)
    return result, written(room, _length.value) if result >= 0 else b""


def recvfrom(fd: int, size: int, flags: int, room: int | None, before: bytes | None = None) -> tuple[int, bytes]:
    """Receive; return the result and the address that the kernel has written.

    ``before``: what is in the room before, which it fills.
    """
    where, _ = prepared(name=before, room=room)
    length = ctypes.addressof(_length) if room is not None else 0
    result = call(Call.RECVFROM, fd, ctypes.addressof(_data), size, flags, where, length)
    return result, written(room or 0, _length.value) if result >= 0 and room is not None else b""


def recvmsg(fd: int, size: int, flags: int, room: int | None, before: bytes | None = None) -> tuple[int, bytes]:
    """Receive into one buffer, as `recvfrom` does."""
    vector = _vectors([size])
    header = ctypes.create_string_buffer(_header(vector, prepared(name=before, room=room)))
    result = call(Call.RECVMSG, fd, ctypes.addressof(header), flags)
    length = struct.unpack_from("=I", header, _AT_NAME_LENGTH)[0]
    return result, written(room or 0, length) if result >= 0 and room is not None else b""


def sendto(fd: int, size: int, flags: int, name: bytes | None) -> int:
    """Send, to an address if there is one."""
    return call(Call.SENDTO, fd, ctypes.addressof(_data), size, flags, *prepared(name))


def sendmsg(fd: int, size: int, flags: int, name: bytes | None) -> int:
    """Send one buffer, to an address if there is one."""
    vector = _vectors([size])
    header = ctypes.create_string_buffer(_header(vector, prepared(name)))
    return call(Call.SENDMSG, fd, ctypes.addressof(header), flags)


def plain(function: Call, fd: int, size: int) -> int:
    """Read or write, at no offset: into or from one buffer, or two of half the size."""
    if function in {Call.READ, Call.WRITE}:
        return call(function, fd, ctypes.addressof(_data), size)
    vectors = _vectors([size // 2, size - size // 2])
    # the offset -1 in two halves: as a socket needs it
    offset = (-1, -1, 0) if function in {Call.PREADV2, Call.PWRITEV2} else ()
    return call(function, fd, ctypes.addressof(vectors), 2, *offset)


def sendfile(fd: int, source: int, size: int) -> int:
    """Send what a file has, from its beginning."""
    offset = ctypes.c_int64(0)
    return call(Call.SENDFILE, fd, source, ctypes.addressof(offset), size)


def several(function: Call, fd: int, sizes: Sequence[int]) -> tuple[int, int]:
    """Send or receive messages of these sizes in one call; return its result, and the sum of the lengths it says."""
    vectors = [_vectors([size]) for size in sizes]
    packed = b"".join(_header(vector, (0, 0)) + bytes(8) for vector in vectors)
    messages = ctypes.create_string_buffer(packed, len(packed) + 1)
    result = call(function, fd, ctypes.addressof(messages), len(sizes), socket.MSG_DONTWAIT, 0)
    lengths = [_MESSAGE.unpack_from(messages, index * _MESSAGE.size)[-1] for index in range(max(result, 0))]
    return result, sum(lengths)


def bind(fd: int, name: bytes) -> None:
    """Bind a socket, and listen on it; neither is an event, and whether it works is the script's affair."""
    os.set_blocking(fd, False)
    _libc.setsockopt(fd, socket.SOL_SOCKET, socket.SO_REUSEADDR, ctypes.byref(ctypes.c_int(1)), 4)
    _libc.bind(fd, name, len(name))
    _libc.listen(fd, 128)


def own_name(fd: int) -> bytes:
    """Return the address that a socket is bound to (getsockname(2), which is no event)."""
    where, _ = prepared(room=ROOM)
    assert _libc.getsockname(fd, ctypes.c_void_p(where), ctypes.byref(_length)) == 0
    return written(ROOM, _length.value)


def shutdown(fd: int, how: int) -> None:
    """Shut a socket down; no event either."""
    _libc.shutdown(fd, how)


def connect(fd: int, name: bytes) -> int:
    """Connect to an address."""
    return call(Call.CONNECT, fd, *prepared(name))


def _vectors(sizes: Sequence[int]) -> ctypes.Array[ctypes.c_char]:
    packed = b"".join(_VECTOR.pack(ctypes.addressof(_data), size) for size in sizes)
    return ctypes.create_string_buffer(packed, len(packed))


def _header(vectors: ctypes.Array[ctypes.c_char], name: tuple[int, int]) -> bytes:
    return _HEADER.pack(*name, ctypes.addressof(vectors), len(vectors) // _VECTOR.size, 0, 0, 0)
