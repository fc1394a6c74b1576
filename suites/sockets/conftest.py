"""The network monitor, and scripts that it watches."""

from __future__ import annotations

import enum
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import pytest

from kernel_matrix.guest.bpf.loaders import Loader, Object
from kernel_matrix.guest.bpf.steps import object_path
from kernel_matrix.guest.system.netns import namespace
from kernel_matrix.guest.system.privilege import Cap, run_as
from suites.kernel_account import runs_skipped, skipped


class Kind(enum.StrEnum):
    """``enum net_kind``, whose values are the object's own."""

    CONNECT = "NET_CONNECT"
    ACCEPT = "NET_ACCEPT"
    SEND = "NET_SEND"
    RECEIVE = "NET_RECEIVE"
    CLOSE = "NET_CLOSE"


class State(enum.StrEnum):
    """``enum net_state``."""

    DONE = "NET_DONE"
    FAILED = "NET_FAILED"
    IN_PROGRESS = "NET_IN_PROGRESS"
    INTERRUPTED = "NET_INTERRUPTED"
    UNCHANGED = "NET_UNCHANGED"


class Call(enum.IntEnum):
    """Numbers of system calls (asm/unistd_64.h)."""

    READ = 0
    WRITE = 1
    CLOSE = 3
    READV = 19
    WRITEV = 20
    SENDFILE = 40
    CONNECT = 42
    ACCEPT = 43
    SENDTO = 44
    RECVFROM = 45
    SENDMSG = 46
    RECVMSG = 47
    SPLICE = 275
    ACCEPT4 = 288
    RECVMMSG = 299
    SENDMMSG = 307
    PREADV2 = 327
    PWRITEV2 = 328


def programs_of(call: Call) -> tuple[str, str]:
    """Return the names of a call's two programs."""
    name = "sendfile64" if call is Call.SENDFILE else call.name.lower()
    return f"trace_{name}_enter", f"trace_{name}_exit"


PROGRAMS = tuple(name for call in Call for name in programs_of(call))


#: how often something is measured, at most, while the kernel says that it has skipped programs in it
MEASUREMENTS = 10


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a call, as an event has it: an address of IPv4 is in the first four of 16 bytes."""

    family: int = 0
    port: int = 0
    address: bytes = bytes(16)

    @classmethod
    def of(cls, family: int, address: Any) -> Peer:  # noqa: ANN401 - as socket.getpeername() returns it
        """Return the peer of a socket's address."""
        if family not in {socket.AF_INET, socket.AF_INET6}:
            return cls(family)
        return cls(family, address[1], socket.inet_pton(family, address[0]).ljust(16, b"\0"))

    @classmethod
    def of_socket(cls, fd: int, family: int) -> Peer:
        """Return whom the kernel says a socket is connected to (getpeername(2)); only the Internet's sockets count."""
        if family not in {socket.AF_INET, socket.AF_INET6}:
            return cls()
        sock = socket.socket(fileno=fd)
        try:
            return cls.of(family, sock.getpeername())
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            return cls()
        finally:
            sock.detach()


@dataclass(frozen=True, slots=True)
class NetEvent:
    """``struct net_event``."""

    timestamp: int
    result: int
    bytes: int
    pid: int
    tgid: int
    uid: int
    fd: int
    kind: str
    state: str
    call: int
    family: int
    peer_family: int
    peer_port: int
    peer_address: tuple[int, ...]
    comm: str

    @property
    def peer(self) -> Peer:
        """Return the three fields of the other end."""
        return Peer(self.peer_family, self.peer_port, bytes(self.peer_address))


@dataclass(frozen=True, slots=True)
class Totals:
    """``struct net_totals``."""

    connects: int = 0
    connects_failed: int = 0
    connects_in_progress: int = 0
    connects_interrupted: int = 0
    connects_repeated: int = 0
    accepts: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    closes: int = 0
    lost_events: int = 0
    lost_calls: int = 0
    lost_ends: int = 0
    lost_lengths: int = 0


@dataclass(frozen=True, slots=True)
class Expected:
    """What a call leaves behind: the part of an event that a script knows beforehand."""

    call: Call
    fd: int
    family: int
    result: int
    peer: Peer
    #: None: the result, for a call that moves bytes
    bytes: int | None = None


class Script:
    """What a script did, noted beside each call."""

    def __init__(self) -> None:
        self.expected: list[Expected] = []

    def did(
        self, call: Call, fd: int, family: int, result: int, *, moved: int | None = None, peer: Peer | None = None
    ) -> None:
        """Note a call that the monitor must have seen; without a peer, on the socket that the kernel says.

        After an accept that is the new socket; a connect to a path has an address without a port.
        """
        if peer is None and call is Call.CONNECT and family == socket.AF_UNIX:
            peer = Peer(socket.AF_UNIX)
        if peer is None:
            accepted = call in {Call.ACCEPT, Call.ACCEPT4} and result >= 0
            peer = Peer.of_socket(result if accepted else fd, family)
        self.expected.append(Expected(call, fd, int(family), result, peer, moved))


_KINDS = {
    Call.CONNECT: Kind.CONNECT,
    Call.ACCEPT: Kind.ACCEPT,
    Call.ACCEPT4: Kind.ACCEPT,
    Call.CLOSE: Kind.CLOSE,
    **dict.fromkeys([Call.SENDTO, Call.SENDMSG, Call.SENDMMSG, Call.WRITE, Call.WRITEV, Call.PWRITEV2], Kind.SEND),
    Call.SENDFILE: Kind.SEND,
    **dict.fromkeys([Call.RECVFROM, Call.RECVMSG, Call.RECVMMSG, Call.READ, Call.READV, Call.PREADV2], Kind.RECEIVE),
}


def _event(expected: Expected, event: NetEvent, pid: int, uid: int, comm: str) -> NetEvent:
    kind = _KINDS.get(expected.call, Kind(event.kind))
    state = State.DONE if expected.result >= 0 else State.FAILED
    if expected.result == -errno.EINPROGRESS:
        state = State.IN_PROGRESS
    elif kind is Kind.CONNECT and expected.result in {-errno.EALREADY, -errno.EISCONN}:
        state = State.UNCHANGED
    moves = kind in {Kind.SEND, Kind.RECEIVE}
    moved = max(expected.result, 0) if expected.bytes is None else expected.bytes
    return NetEvent(
        timestamp=event.timestamp,
        result=expected.result,
        bytes=moved if moves else 0,
        pid=pid,
        tgid=pid,
        uid=uid,
        fd=expected.fd,
        kind=kind,
        state=state,
        call=expected.call,
        family=expected.family,
        peer_family=expected.peer.family,
        peer_port=expected.peer.port,
        peer_address=tuple(expected.peer.address),
        comm=comm,
    )


class Monitor:
    """The attached monitor and its maps; events and totals are those since the last `begin`."""

    def __init__(self, obj: Object) -> None:
        self._ring = obj.ring_buffer("events")
        self._event = obj.layout("net_event", NetEvent)
        self._totals = obj.layout("net_totals", Totals)
        self._totals_map = obj.map("totals")
        self._before = Totals()
        self.calls = obj.map("calls")
        self.object = obj
        self.links = obj.attach()

    def attach(self, *calls: Call) -> None:
        """Attach the programs of these calls (of all, when none is named) after `links` were closed."""
        self.links = self.object.attach(*[name for call in calls for name in programs_of(call)])

    def begin(self) -> None:
        """Forget the events and totals until now: loading 36 programs takes longer than most tests."""
        self._ring.consume()
        self._before = self._since_loaded()

    def events(self, *tgids: int) -> list[NetEvent]:
        """Return the new events of these processes (all, when none is named).

        An event is in the buffer before the call it reports returns.
        """
        events = [self._event.decode(record) for record in self._ring.consume()]
        return [event for event in events if not tgids or event.tgid in tgids]

    def totals(self) -> Totals:
        """Return the sums over all processors."""
        now, names = self._since_loaded(), Totals.__dataclass_fields__
        return Totals(**{name: getattr(now, name) - getattr(self._before, name) for name in names})

    def each_cpu(self) -> list[Totals]:
        """Return what each processor has counted since the monitor was loaded."""
        return [self._totals.decode(value) for value in self._totals_map.get_each_cpu(0)]

    def preset(self, totals: list[int]) -> None:
        """Set the totals of every processor, in the order of the struct."""
        cpus = len(self._totals_map.get_each_cpu(0))
        assert self._totals.size == 8 * len(totals)
        self._totals_map.put(0, struct.pack(f"={len(totals)}Q", *totals) * cpus)

    def _since_loaded(self) -> Totals:
        per_cpu, names = self.each_cpu(), Totals.__dataclass_fields__
        return Totals(**{name: sum(getattr(total, name) for total in per_cpu) for name in names})

    def watch(self, script: Callable[[Script], None], *, uid: int = 0) -> list[NetEvent]:
        """Run a script in a child; check that exactly what it noted was reported.

        Where an event is missing and the kernel has skipped a program meanwhile, that shows nothing of the monitor: the
        script is run again.
        """
        before, left = runs_skipped(), MEASUREMENTS
        while True:
            left -= 1
            pid, expected, comm = run_script(script, uid=uid)
            events = self.events(pid)
            wanted = [(note.call.name, note.fd, note.family, note.result) for note in expected]
            reported = [_short(event) for event in events]
            if reported == wanted or not left or runs_skipped() == before:
                break
            self.begin()
        assert reported == wanted, f"the kernel has skipped {skipped(PROGRAMS)}"
        for event, note in zip(events, expected, strict=True):
            assert event == _event(note, event, pid, uid, comm)
        return events


def _short(event: NetEvent) -> tuple[str, int, int, int]:
    return Call(event.call).name, event.fd, event.family, event.result


class _KeptSocket(socket.socket):
    """A socket that only its script closes: the garbage collector's close would be an event that no script noted."""

    _kept: ClassVar[list[socket.socket]] = []

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:  # noqa: A002 - socket's own name for it
        super().__init__(family, type, proto, fileno)
        self._kept.append(self)


def run_script(script: Callable[[Script], None], *, uid: int = 0) -> tuple[int, list[Expected], str]:
    """Run a script in a child; return its pid, what it noted and its comm."""

    def child() -> tuple[int, list[Expected], str]:
        made = Script()
        with mock.patch.object(socket, "socket", _KeptSocket):
            script(made)
        return os.getpid(), made.expected, Path("/proc/self/comm").read_text().rstrip("\n")

    return run_as(child, caps=() if uid else set(Cap), uid=uid)


@contextmanager
def monitoring(loader: Loader, **max_entries: int) -> Iterator[Monitor]:
    """Load and attach a monitor of its own."""
    with loader.opened(object_path("tracepoint_network"), max_entries=max_entries) as obj:
        yield Monitor(obj)


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    """Enter a fresh network namespace, before a monitor is there that would count the netlink calls that make it."""
    with namespace(ipv6=True) as place, place.entered():
        yield


@pytest.fixture(scope="module")
def loaded(loader: Loader) -> Iterator[Monitor]:
    """Return the monitor as it ships, which all tests of a file share."""
    with monitoring(loader) as made:
        yield made


@pytest.fixture
def lossy(loaded: Monitor, network: None, tmp_path: Path) -> Monitor:  # noqa: ARG001 - the first tmp_path asks nscd for a name
    """Return the monitor with nothing seen yet; the test says what it loses."""
    loaded.begin()
    return loaded


@pytest.fixture(scope="module")
def spare(loader: Loader) -> Iterator[Monitor]:
    """Return a second monitor, which is attached only while a test asks for it."""
    with monitoring(loader) as made:
        made.links.close()
        yield made


@pytest.fixture
def detached(spare: Monitor, network: None) -> Iterator[Monitor]:  # noqa: ARG001 - made before, as for `lossy`
    """Return a monitor with nothing seen yet, which the test attaches and may detach."""
    spare.begin()
    yield spare
    spare.links.close()


@pytest.fixture
def monitor(lossy: Monitor) -> Iterator[Monitor]:
    """Return the monitor with nothing seen yet; at the end nothing may have been lost and no call be left over."""
    yield lossy
    totals = lossy.totals()
    assert (totals.lost_events, totals.lost_calls, totals.lost_lengths) == (0, 0, 0)
    if totals.lost_ends or list(lossy.calls.keys()):
        # the end of some thread's call, not of the test's own: its events would be missing
        assert skipped(PROGRAMS), "calls without an end, and the kernel has skipped no program"
