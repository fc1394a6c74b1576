"""What a generated script has: its descriptors, and addresses."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

from suites.sockets import raw
from suites.sockets.conftest import Call
from suites.sockets.model import INET, INET6, UNIX, Model, Socket


class World:
    """The descriptors of a script: those that it has made, open or not, and some that are no sockets."""

    def __init__(self) -> None:
        self.model = Model()
        self.file = os.memfd_create("file")
        os.write(self.file, bytes(3000))
        pipe = os.pipe2(os.O_NONBLOCK)
        self.numbers = [-1, 1 << 20, self.file, *pipe]

    def at(self, back: int) -> int:
        """Return a descriptor by its place, counted from the newest."""
        return self.numbers[-1 - back % len(self.numbers)]

    def add(self, *made: tuple[int, Socket]) -> None:
        """Note new sockets."""
        for number, sock in made:
            self.model.sockets[number] = sock
            self.numbers.append(number)

    def new(self, family: int, kind: int) -> int:
        """Create a socket that does not block."""
        number = socket.socket(family, kind | socket.SOCK_NONBLOCK).detach()
        self.add((number, Socket(family, kind)))
        return number

    def connect(self, fd: int, name: bytes, *, waits: bool) -> None:
        """Connect; waiting takes no time on loopback, where whoever listens has room."""
        if fd in self.model.sockets:
            os.set_blocking(fd, waits)
        self.model.connect(fd, name, raw.connect(fd, name))
        if fd in self.model.sockets:
            os.set_blocking(fd, False)

    def accept(self, call: Call, fd: int) -> None:
        """Accept a connection."""
        flags = (socket.SOCK_NONBLOCK,) if call == Call.ACCEPT4 else ()
        result, name = raw.on_name(call, fd, raw.ROOM, *flags)
        self.model.accept(call, fd, result, name)
        if result >= 0:
            os.set_blocking(result, False)
            self.numbers.append(result)


@dataclass(frozen=True, slots=True)
class To:
    """An address: of the socket's family or of another one, cut behind some bytes or whole."""

    family: int | None
    place: int
    length: int | None

    def name(self, world: World, fd: int) -> bytes:
        """Return its bytes."""
        sock = world.model.sockets.get(fd)
        family = self.family if self.family is not None else sock.family if sock else INET
        port = socket.htons(2000 + self.place)
        names = {
            socket.AF_UNSPEC: bytes(16),
            INET: struct.pack("=HH4s8x", INET, port, bytes([127, 0, 0, 1 + self.place])),
            INET6: struct.pack("=HHI16sI", INET6, port, 0, bytes(15) + b"\x01", 0),
            UNIX: struct.pack("=H", UNIX) + b"\0place" + bytes([self.place]),
        }
        return names[socket.AddressFamily(family)][: self.length]
