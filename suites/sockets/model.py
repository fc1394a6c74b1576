"""What docs/programs.md promises for a sequence of calls: which are events, with which fields, and the totals."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from suites.sockets.conftest import Call, Expected, Kind, NetEvent, Peer, State, Totals

INET, INET6, UNIX = socket.AF_INET, socket.AF_INET6, socket.AF_UNIX
INTERNET = (INET, INET6)
#: sizeof(struct sockaddr_in), and sockaddr_in6 without its scope (SIN6_LEN_RFC2133)
_WHOLE = {INET: 16, INET6: 24}
#: a connect of a stream that ends so leaves things as they are: connected, connecting, or nothing was tried
_UNCHANGED = {-errno.EISCONN, -errno.EALREADY, -errno.EINVAL, -errno.EAFNOSUPPORT}


def named(name: bytes) -> Peer | None:
    """Return the peer that an address in a call names: None for none, its family alone when it is not whole."""
    if len(name) < 2:
        return None
    family, port = struct.unpack("=H", name[:2])[0], int.from_bytes(name[2:4], "big")
    if family == socket.AF_UNSPEC:
        return None
    if family not in _WHOLE or len(name) < _WHOLE[family]:
        return Peer(family)
    address = name[4:8].ljust(16, b"\0") if family == INET else name[8:24]
    return Peer(family, port, address)


@dataclass(slots=True)
class Socket:
    """An open socket, which several descriptors may share."""

    family: int
    type: int
    #: whom it is connected to, or connecting; only sockets of the Internet have one
    peer: Peer = field(default_factory=Peer)

    def connected(self, name: bytes, result: int) -> None:
        """Note the result of a connect."""
        peer = named(name)
        if self.family not in INTERNET or (result < 0 and self.type == socket.SOCK_DGRAM):
            return
        if peer is None:  # AF_UNSPEC
            self.peer = Peer() if result == 0 else self.peer
        elif self.type == socket.SOCK_DGRAM:
            self.peer = self._mapped(peer)
        elif result in {0, -errno.EINPROGRESS}:
            # 0 may be the end of what has begun before, whomever the call names
            self.peer = self.peer if self.peer != Peer() else peer
        elif result not in _UNCHANGED:
            self.peer = Peer()

    def _mapped(self, peer: Peer) -> Peer:
        """Return the address as the socket has it: in a socket of IPv6, one of IPv4 is mapped."""
        if self.family == INET6 and peer.family == INET:
            return Peer(INET6, peer.port, bytes(10) + b"\xff\xff" + peer.address[:4])
        return peer


class Model:
    """The open sockets, and the calls that are events."""

    def __init__(self) -> None:
        self.sockets: dict[int, Socket] = {}
        self.expected: list[Expected] = []

    def did(self, call: Call, fd: int, result: int, *, moved: int | None = None, peer: Peer | None = None) -> None:
        """Note a call: it is an event if the descriptor is a socket; without a peer, of the connection's."""
        if sock := self.sockets.get(fd):
            self.expected.append(Expected(call, fd, sock.family, result, peer or sock.peer, moved))

    def connect(self, fd: int, name: bytes, result: int) -> None:
        """Note a connect."""
        self.did(Call.CONNECT, fd, result, peer=named(name) or Peer())
        if sock := self.sockets.get(fd):
            sock.connected(name, result)

    def accept(self, call: Call, fd: int, result: int, name: bytes) -> None:
        """Note an accept: the new socket is of the listener's kind, and its peer that of the event."""
        sock = self.sockets.get(fd)
        if sock is None:
            return
        peer = (named(name) if sock.family in INTERNET else None) or Peer()
        self.did(call, fd, result, peer=peer)
        if result >= 0:
            self.sockets[result] = Socket(sock.family, sock.type, peer)

    def close(self, fd: int, result: int) -> None:
        """Note a close."""
        self.did(Call.CLOSE, fd, result)
        self.sockets.pop(fd, None)

    def duplicate(self, old: int, new: int) -> None:
        """Note that another descriptor is the same file now; what it was before is closed, which is no event."""
        sock = self.sockets.get(old)
        self.sockets.pop(new, None)
        if sock is not None:
            self.sockets[new] = sock


def totals_of(events: Iterable[NetEvent]) -> Totals:
    """Return the totals of these events, of which none was lost."""
    counts = dict.fromkeys(Totals.__dataclass_fields__, 0)
    connects = {
        State.DONE: "connects",
        State.FAILED: "connects_failed",
        State.IN_PROGRESS: "connects_in_progress",
        State.INTERRUPTED: "connects_interrupted",
        State.UNCHANGED: "connects_repeated",
    }
    for event in events:
        kind, done = Kind(event.kind), event.state == State.DONE
        if kind == Kind.CONNECT:
            counts[connects[State(event.state)]] += 1
        elif kind in {Kind.ACCEPT, Kind.CLOSE}:
            counts["accepts" if kind == Kind.ACCEPT else "closes"] += done
        else:
            counts["bytes_sent" if kind == Kind.SEND else "bytes_received"] += event.bytes
    return Totals(**counts)
