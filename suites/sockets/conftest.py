"""The network monitor, and scripts that it watches."""

from __future__ import annotations

import enum
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar
from unittest import mock

import pytest

from kernel_matrix.guest.bpf.loaders import Loader, Object
from kernel_matrix.guest.bpf.steps import object_path
from kernel_matrix.guest.system.netns import namespace
from kernel_matrix.guest.system.privilege import Cap, run_as


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
    comm: str


@dataclass(frozen=True, slots=True)
class Totals:
    """``struct net_totals``."""

    connects: int = 0
    connects_failed: int = 0
    connects_in_progress: int = 0
    connects_interrupted: int = 0
    accepts: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    closes: int = 0
    lost_events: int = 0
    lost_calls: int = 0
    lost_lengths: int = 0


@dataclass(frozen=True, slots=True)
class Expected:
    """What a call leaves behind: the part of an event that a script knows beforehand."""

    call: Call
    fd: int
    family: int
    result: int
    #: None: the result, for a call that moves bytes
    bytes: int | None = None


class Script:
    """What a script did, noted beside each call."""

    def __init__(self) -> None:
        self.expected: list[Expected] = []

    def did(self, call: Call, fd: int, family: int, result: int, *, moved: int | None = None) -> None:
        """Note a call that the monitor must have seen."""
        self.expected.append(Expected(call, fd, int(family), result, moved))


_KINDS = {
    Call.CONNECT: Kind.CONNECT,
    Call.ACCEPT: Kind.ACCEPT,
    Call.ACCEPT4: Kind.ACCEPT,
    Call.CLOSE: Kind.CLOSE,
    **dict.fromkeys([Call.SENDTO, Call.SENDMSG, Call.SENDMMSG, Call.WRITE, Call.WRITEV, Call.PWRITEV2], Kind.SEND),
    Call.SENDFILE: Kind.SEND,
    **dict.fromkeys([Call.RECVFROM, Call.RECVMSG, Call.RECVMMSG, Call.READ, Call.READV, Call.PREADV2], Kind.RECEIVE),
}
#: linux/errno.h
_EINPROGRESS = 115


def _event(expected: Expected, event: NetEvent, pid: int, uid: int, comm: str) -> NetEvent:
    kind = _KINDS.get(expected.call, Kind(event.kind))
    state = State.DONE if expected.result >= 0 else State.FAILED
    if kind is Kind.CONNECT and expected.result == -_EINPROGRESS:
        state = State.IN_PROGRESS
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
        self.links = obj.attach()

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

    def _since_loaded(self) -> Totals:
        per_cpu = [self._totals.decode(value) for value in self._totals_map.get_each_cpu(0)]
        names = Totals.__dataclass_fields__
        return Totals(**{name: sum(getattr(total, name) for total in per_cpu) for name in names})

    def watch(self, script: Callable[[Script], None], *, uid: int = 0) -> list[NetEvent]:
        """Run a script in a child; check that exactly what it noted was reported."""
        pid, expected, comm = run_script(script, uid=uid)
        events = self.events(pid)
        assert [_short(event) for event in events] == [
            (note.call.name, note.fd, note.family, note.result) for note in expected
        ]
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
def monitor(loaded: Monitor, network: None, tmp_path: Path) -> Iterator[Monitor]:  # noqa: ARG001 - the first tmp_path asks nscd for a name
    """Return the monitor with nothing seen yet; at the end nothing may have been lost and no call be left over."""
    loaded.begin()
    yield loaded
    totals = loaded.totals()
    lost = replace(Totals(), lost_events=totals.lost_events, lost_calls=totals.lost_calls)
    assert replace(lost, lost_lengths=totals.lost_lengths) == Totals()
    assert list(loaded.calls.keys()) == []
