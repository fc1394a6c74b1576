"""System calls on descriptors that Python does not provide, or for which it makes a different call."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
from collections.abc import Sequence

_libc = ctypes.CDLL(None, use_errno=True)


class _IoVector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr (recvmsg(2)), 56 bytes."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_IoVector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr (recvmmsg(2)), 64 bytes."""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint32))


def _messages(buffers: Sequence[ctypes.Array[ctypes.c_char]]) -> ctypes.Array[_Message]:
    messages = (_Message * len(buffers))()
    for message, buffer in zip(messages, buffers, strict=True):
        vector = _IoVector(ctypes.cast(buffer, ctypes.c_void_p), len(buffer))
        message.header.vectors = ctypes.pointer(vector)
        message.header.vector_count = 1
    return messages


def sendmmsg(fd: int, payloads: Sequence[bytes]) -> list[int]:
    """Send several messages in one call; return the bytes sent of each; raises OSError."""
    messages = _messages([ctypes.create_string_buffer(payload, len(payload)) for payload in payloads])
    count = _checked(_libc.sendmmsg(fd, messages, len(messages), 0))
    return [messages[index].length for index in range(count)]


def recvmmsg(fd: int, sizes: Sequence[int]) -> list[int]:
    """Receive several messages in one call without waiting; return the bytes received of each; raises OSError."""
    messages = _messages([ctypes.create_string_buffer(size) for size in sizes])
    # MSG_DONTWAIT of linux/socket.h
    count = _checked(_libc.recvmmsg(fd, messages, len(messages), 0x40, None))
    return [messages[index].length for index in range(count)]


class Vector:
    """Messages of these sizes for one sendmmsg or recvmmsg, in memory that the caller chooses."""

    def __init__(self, sizes: Sequence[int], memory: mmap.mmap, offset: int) -> None:
        self._messages = (_Message * len(sizes)).from_buffer(memory, offset)
        # kept: it owns the buffers, to which the copies of its messages only point
        self._source = _messages([ctypes.create_string_buffer(size) for size in sizes])
        self._messages[:] = list(self._source)

    def send(self, fd: int) -> int:
        """Send the messages; return how many were sent; raises OSError."""
        return _checked(_libc.sendmmsg(fd, self._messages, len(self._messages), 0))

    def receive(self, fd: int, flags: int = 0) -> int:
        """Receive the messages, waiting for each; return how many were received; raises OSError."""
        return _checked(_libc.recvmmsg(fd, self._messages, len(self._messages), flags, None))

    def lengths(self) -> list[int]:
        """Return the lengths that the kernel has written so far, 0 for a message that was not received."""
        return [message.length for message in self._messages]


#: struct io_uring_params (linux/io_uring.h): ten numbers, then the offsets of the two rings
_PARAMETERS = struct.Struct("=10I 8IQ 8IQ")
#: struct io_uring_sqe: operation, descriptor, address, length; what is not used here is 0
_SUBMISSION = struct.Struct("=B3xi8xQI36x")
_IO_URING_SETUP, _IO_URING_ENTER = 425, 426
_SUBMISSIONS_AT, _COMPLETIONS_AT, _ENTRIES_AT = 0, 0x0800_0000, 0x1000_0000
_OPERATION_SEND = 26
_WAIT = 1  # IORING_ENTER_GETEVENTS


def send_by_io_uring(fd: int, data: bytes) -> int:
    """Send without a system call of sending (io_uring(7)); return the result. Raises OSError."""
    parameters = ctypes.create_string_buffer(_PARAMETERS.size)
    ring = _checked(_libc.syscall(_IO_URING_SETUP, 1, parameters))
    # head, tail, mask, entries, flags, dropped, array, ...; of completions head, tail, mask, entries, overflow, entries
    fields = _PARAMETERS.unpack(parameters.raw)
    tail, array, completions = fields[11], fields[16], fields[24]
    buffer = ctypes.create_string_buffer(data, len(data))
    with (
        mmap.mmap(ring, mmap.PAGESIZE, offset=_SUBMISSIONS_AT) as submissions,
        mmap.mmap(ring, mmap.PAGESIZE, offset=_COMPLETIONS_AT) as completed,
        mmap.mmap(ring, mmap.PAGESIZE, offset=_ENTRIES_AT) as entries,
    ):
        entries[: _SUBMISSION.size] = _SUBMISSION.pack(_OPERATION_SEND, fd, ctypes.addressof(buffer), len(data))
        submissions[array : array + 4] = bytes(4)
        submissions[tail : tail + 4] = struct.pack("=I", 1)
        assert _checked(_libc.syscall(_IO_URING_ENTER, ring, 1, 1, _WAIT, None, 0)) == 1
        result: int = struct.unpack_from("=Qi", completed, completions)[1]
    os.close(ring)
    return result


def take_away(memory: mmap.mmap, offset: int, size: int) -> None:
    """Make pages inaccessible, even for the kernel; raises OSError."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory, offset))
    # PROT_NONE of asm-generic/mman-common.h
    _checked(_libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), 0))


def accept(fd: int) -> int:
    """Accept a connection by the old system call, because Python uses accept4; return its descriptor."""
    return _checked(_libc.accept(fd, None, None))


def connect(fd: int, address: tuple[str, int], length: int) -> int:
    """Connect to an address of IPv4 of which that many of its 16 bytes count; return 0 or the negative errno."""
    host, port = address
    name = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(port), socket.inet_aton(host))
    return -ctypes.get_errno() if _libc.connect(fd, name, length) else 0


def recvfrom(fd: int, room: int, times: int = 1) -> tuple[int, int]:
    """Receive with room for that much of the sender's address, all times into the same memory.

    Return the last call's result, a negative errno where it fails, and the length of the address that the kernel says.
    """
    address, length = ctypes.create_string_buffer(16), ctypes.c_uint32(0)
    result = 0
    for _ in range(times):
        length.value = room
        result = _libc.recvfrom(fd, ctypes.create_string_buffer(100), 100, 0, address, ctypes.byref(length))
        result = -ctypes.get_errno() if result < 0 else result
    return result, length.value


def disconnect(fd: int) -> int:
    """Connect to an address of the family AF_UNSPEC, which Python has no way to name; return the call's result."""
    return _checked(_libc.connect(fd, bytes(16), 16))


def recv(fd: int, buffer: bytearray, flags: int) -> int:
    """Receive; return the result of the call, which with MSG_TRUNC may exceed the size of the buffer."""
    target = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    return _checked(_libc.recv(fd, target, len(buffer), flags))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
