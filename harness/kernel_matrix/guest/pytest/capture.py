"""What went over a test's veth pairs, as a pcap: taken by a tap on both ends, told to the host when the test fails.

A tap is a packet socket: it sees a copy, and the program under test still sees, drops and counts the frame itself.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import io
import socket
import struct
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from scapy.utils import RawPcapWriter

from kernel_matrix.guest.system import netns, traffic
from kernel_matrix.guest.system.netns import Interface, Veth
from kernel_matrix.shared.protocol import PCAP

#: linux/if_packet.h: sll_pkttype of a frame that this end sends
_OUTGOING = 4
#: asm-generic/socket.h: when the kernel saw a frame, as struct timespec
_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("=qq")
#: bytes of the kernel's for one end, bookkeeping included: some thousand frames; what comes later is not taken
_ROOM = 16 << 20
#: more than a frame with all its segments
_FRAME = 1 << 17
_ETHERNET = 1


@dataclass(frozen=True, slots=True, order=True)
class Taken:
    """One frame at one end."""

    #: of CLOCK_REALTIME
    nanoseconds: int
    #: at the same time sending comes first
    received: bool
    #: the pair, and which end of it
    pair: int
    end: int
    data: bytes


def on_the_wire(taken: Iterable[Taken]) -> list[Taken]:
    """Return each frame once, in order: as its sender's end saw it, or its receiver's where the sender's could not.

    A frame that XDP sends back never comes by a tap of the end that it leaves.
    """
    under_way: Counter[tuple[int, int, bytes]] = Counter()
    frames = []
    for each in sorted(taken):
        if not each.received:
            under_way[each.pair, each.end, each.data] += 1
        elif under_way[each.pair, 1 - each.end, each.data]:
            under_way[each.pair, 1 - each.end, each.data] -= 1
            continue
        frames.append(each)
    return frames


def pcap(frames: Iterable[Taken]) -> bytes:
    """Return a capture file."""
    file = io.BytesIO()
    writer = RawPcapWriter(file, linktype=_ETHERNET, nano=True)
    writer.write_header(None)
    for each in frames:
        seconds, rest = divmod(each.nanoseconds, 10**9)
        writer.write_packet(each.data, sec=seconds, usec=rest)
    writer.flush()
    return file.getvalue()


class CapturePlugin:
    """Watches every pair that a test makes."""

    def __init__(self) -> None:
        self._taps: list[tuple[int, int, socket.socket]] = []
        self._taken: list[Taken] = []
        self._pairs = 0
        netns.watch = self.watched

    @contextlib.contextmanager
    def watched(self, pair: Veth) -> Iterator[None]:
        """Take what passes both ends."""
        number, self._pairs = self._pairs, self._pairs + 1
        with contextlib.ExitStack() as stack:
            taps = [(number, end, stack.enter_context(_tap(each))) for end, each in enumerate((pair.near, pair.far))]
            self._taps += taps
            try:
                yield
            finally:
                self._drain()
                self._taps = [each for each in self._taps if each not in taps]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Forget the test before."""
        self._taken.clear()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, Any, Any]:
        """Add to the report of a failure what has passed until now."""
        report: pytest.TestReport = yield
        if report.failed:
            self._drain()
            if self._taken:
                content = base64.b64encode(pcap(on_the_wire(self._taken))).decode()
                report.user_properties.append((PCAP, content))
        return report

    def _drain(self) -> None:
        for pair, end, tap in self._taps:
            self._taken += _take_all(tap, pair, end)


def _tap(interface: Interface) -> socket.socket:
    with interface.namespace.entered():
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    # SO_RCVBUFFORCE
    tap.setsockopt(socket.SOL_SOCKET, 33, _ROOM)
    tap.setsockopt(socket.SOL_SOCKET, _TIMESTAMPNS, 1)
    traffic.keep_tags(tap)
    tap.bind((interface.name, traffic.ALL))
    return tap


def _take_all(tap: socket.socket, pair: int, end: int) -> Iterator[Taken]:
    while True:
        try:
            yield _take(tap, pair, end)
        except BlockingIOError:
            return
        except OSError as error:
            # that the test has taken the link down is said once, before what came later
            if error.errno != errno.ENETDOWN:
                raise


def _take(tap: socket.socket, pair: int, end: int) -> Taken:
    room = socket.CMSG_SPACE(_TIMESPEC.size) + traffic.TAG_SPACE
    data, ancillary, _, origin = tap.recvmsg(_FRAME, room)
    stamp = next(content for level, kind, content in ancillary if (level, kind) == (socket.SOL_SOCKET, _TIMESTAMPNS))
    seconds, nanoseconds = _TIMESPEC.unpack(stamp)
    whole = traffic.with_tag(data, ancillary)
    return Taken(seconds * 10**9 + nanoseconds, origin[2] != _OUTGOING, pair, end, whole)
