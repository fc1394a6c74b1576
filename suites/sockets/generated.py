"""Generated sequences of calls on descriptors of all kinds, made by a script that notes what the model says of each."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from hypothesis import strategies as st

from suites.sockets import raw
from suites.sockets.conftest import Call, Script
from suites.sockets.model import INET, INET6, INTERNET, UNIX, Socket, named
from suites.sockets.world import To, World

STREAM, DATAGRAM, PACKETS = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET
#: steps of a sequence, at most
STEPS = 20
_PLAIN_SENDS = (Call.WRITE, Call.WRITEV, Call.PWRITEV2)
_PLAIN_RECEIVES = (Call.READ, Call.READV, Call.PREADV2)


class Step(Protocol):
    """One step of a sequence."""

    def run(self, world: World) -> None:
        """Do it, and note what the model says of it."""


@dataclass(frozen=True, slots=True)
class New(Step):
    """A socket; one that listens, or is only bound, where it has a place."""

    family: int
    kind: int
    place: int | None

    def run(self, world: World) -> None:
        """Create it."""
        fd = world.new(self.family, self.kind)
        if self.place is not None:
            raw.bind(fd, To(None, self.place, None).name(world, fd))


@dataclass(frozen=True, slots=True)
class Pair(Step):
    """Two connected unix sockets."""

    kind: int

    def run(self, world: World) -> None:
        """Create them."""
        world.add(*((one.detach(), Socket(UNIX, self.kind)) for one in socket.socketpair(UNIX, self.kind)))
        for back in (0, 1):
            os.set_blocking(world.at(back), False)


@dataclass(frozen=True, slots=True)
class Conversation(Step):
    """A server, a client that has connected, and for a stream the accepted socket."""

    family: int
    kind: int

    def run(self, world: World) -> None:
        """Make all of them."""
        server = world.new(self.family, self.kind)
        own = To(self.family, 0, None).name(world, server)
        # port 0, or a unix socket's family alone: any free one
        raw.bind(server, own[:2] if self.family == UNIX else own[:2] + bytes(2) + own[4:])
        world.connect(world.new(self.family, self.kind), raw.own_name(server), waits=True)
        if self.kind != DATAGRAM:
            world.accept(Call.ACCEPT4, server)


@dataclass(frozen=True, slots=True)
class Connect(Step):
    """A connect to an address, by a socket that waits for the end or not."""

    back: int
    to: To
    waits: bool

    def run(self, world: World) -> None:
        """Connect."""
        fd = world.at(self.back)
        world.connect(fd, self.to.name(world, fd), waits=self.waits)


@dataclass(frozen=True, slots=True)
class Accept(Step):
    """An accept on any descriptor."""

    back: int
    call: Call

    def run(self, world: World) -> None:
        """Accept."""
        world.accept(self.call, world.at(self.back))


@dataclass(frozen=True, slots=True)
class Send(Step):
    """A call that sends, from a file or from memory; two of them can name an address."""

    back: int
    call: Call
    size: int
    flags: int
    to: To | None

    def run(self, world: World) -> None:
        """Send."""
        fd = world.at(self.back)
        if self.call in {Call.SENDTO, Call.SENDMSG}:
            name = self.to.name(world, fd) if self.to else None
            send = raw.sendto if self.call == Call.SENDTO else raw.sendmsg
            result = send(fd, self.size, self.flags, name)
            world.model.did(self.call, fd, result, peer=named(name or b""))
        elif self.call == Call.SENDFILE:
            world.model.did(self.call, fd, raw.sendfile(fd, world.file, self.size))
        else:
            world.model.did(self.call, fd, raw.plain(self.call, fd, self.size))


@dataclass(frozen=True, slots=True)
class Receive(Step):
    """A call that receives; two of them can have room for an address."""

    back: int
    call: Call
    size: int
    flags: int
    room: int | None

    def run(self, world: World) -> None:
        """Receive."""
        fd = world.at(self.back)
        if self.call in {Call.RECVFROM, Call.RECVMSG}:
            receive = raw.recvfrom if self.call == Call.RECVFROM else raw.recvmsg
            result, name = receive(fd, self.size, self.flags, self.room)
            world.model.did(self.call, fd, result, peer=named(name))
        else:
            world.model.did(self.call, fd, raw.plain(self.call, fd, self.size))


@dataclass(frozen=True, slots=True)
class Several(Step):
    """sendmmsg or recvmmsg."""

    back: int
    call: Call
    sizes: Sequence[int]

    def run(self, world: World) -> None:
        """Send or receive them."""
        fd = world.at(self.back)
        result, moved = raw.several(self.call, fd, self.sizes)
        world.model.did(self.call, fd, result, moved=moved)


@dataclass(frozen=True, slots=True)
class Close(Step):
    """A close."""

    back: int

    def run(self, world: World) -> None:
        """Close."""
        fd = world.at(self.back)
        world.model.close(fd, raw.call(Call.CLOSE, fd))


@dataclass(frozen=True, slots=True)
class Duplicate(Step):
    """dup, dup2 onto another descriptor, or to a large number."""

    back: int
    onto: int | None
    large: bool

    def run(self, world: World) -> None:
        """Duplicate."""
        fd = world.at(self.back)
        try:
            if self.onto is not None:
                new = os.dup2(fd, world.at(self.onto))
            else:
                new = fcntl.fcntl(fd, fcntl.F_DUPFD, 300 if self.large else 0)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno != errno.EBADF:
                raise
            return
        world.model.duplicate(fd, new)
        world.numbers.append(new)


@dataclass(frozen=True, slots=True)
class Shutdown(Step):
    """A shutdown."""

    back: int
    how: int

    def run(self, world: World) -> None:
        """Shut down."""
        raw.shutdown(world.at(self.back), self.how)


_BACK = st.integers(0, 12)
_SIZES = st.sampled_from((1, 0, 100, 3000, 70_000, raw.LARGEST))
_TO = st.builds(
    To,
    family=st.none() | st.sampled_from((INET, INET6, UNIX)),
    place=st.integers(0, 2),
    length=st.none() | st.sampled_from((2, 8, 16, 24)),
)
_CONNECT_TO = _TO | st.builds(To, family=st.just(socket.AF_UNSPEC), place=st.just(0), length=st.none())
_KINDS = [*((family, kind) for family in INTERNET for kind in (STREAM, DATAGRAM))]
_UNIX = [(UNIX, kind) for kind in (STREAM, DATAGRAM, PACKETS)]


def _of_kind(step: type[New | Conversation], **more: st.SearchStrategy[object]) -> st.SearchStrategy[Step]:
    return st.one_of(
        *(st.builds(step, family=st.just(family), kind=st.just(kind), **more) for family, kind in _KINDS + _UNIX)
    )


_STEP: st.SearchStrategy[Step] = st.one_of(
    st.builds(Pair, kind=st.sampled_from((STREAM, DATAGRAM, PACKETS))),
    _of_kind(Conversation),
    _of_kind(New, place=st.none() | st.integers(0, 2)),
    st.builds(Connect, back=_BACK, to=_CONNECT_TO, waits=st.booleans()),
    st.builds(Accept, back=_BACK, call=st.sampled_from((Call.ACCEPT4, Call.ACCEPT))),
    st.builds(
        Send,
        back=_BACK,
        call=st.sampled_from((Call.SENDTO, Call.SENDMSG, *_PLAIN_SENDS, Call.SENDFILE)),
        size=_SIZES,
        flags=st.sampled_from((0, socket.MSG_DONTWAIT, socket.MSG_OOB, socket.MSG_MORE)),
        to=st.none() | _TO,
    ),
    st.builds(
        Receive,
        back=_BACK,
        call=st.sampled_from((Call.RECVFROM, Call.RECVMSG, *_PLAIN_RECEIVES)),
        size=_SIZES,
        flags=st.sampled_from((0, socket.MSG_PEEK, socket.MSG_TRUNC, socket.MSG_OOB, socket.MSG_ERRQUEUE)),
        room=st.none() | st.sampled_from((raw.ROOM, 16, 4, 0)),
    ),
    st.builds(
        Several,
        back=_BACK,
        call=st.sampled_from((Call.SENDMMSG, Call.RECVMMSG)),
        sizes=st.lists(st.sampled_from((1, 0, 100, 3000)), max_size=5),
    ),
    st.builds(Close, back=_BACK),
    st.builds(Duplicate, back=_BACK, onto=st.none() | _BACK, large=st.booleans()),
    st.builds(Shutdown, back=_BACK, how=st.integers(0, 2)),
)


@st.composite
def sequences(draw: st.DrawFn) -> tuple[Step, ...]:
    """Generate up to so many steps; the fewer, the simpler."""
    return tuple(step for step in [draw(st.none() | _STEP) for _ in range(STEPS)] if step is not None)


def script_of(steps: Sequence[Step]) -> Callable[[Script], None]:
    """Return the script that does these steps."""

    def script(script: Script) -> None:
        world = World()
        for step in steps:
            step.run(world)
        script.expected += world.model.expected

    return script
