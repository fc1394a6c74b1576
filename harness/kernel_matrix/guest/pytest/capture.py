"""Capture the traffic on a test's veth pairs with a tap on each end, and send it to the host when the test fails.

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
from kernel_matrix.shared.channel.protocol import PCAP

#: linux/if_packet.h: sll_pkttype of a frame that this end sends
_OUTGOING = 4
#: asm-generic/socket.h: when the kernel saw a frame, as struct timespec
_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("=qq")
#: bytes of the kernel's buffer for one end, with its overhead: some thousand frames; later ones are not captured
_ROOM = 16 << 20
#: bytes, more than a frame with all its segments
_FRAME = 1 << 17
_ETHERNET = 1


@dataclass(frozen=True, slots=True, order=True)
class CapturedFrame:
    """One captured frame at one end of a pair."""

    #: of CLOCK_REALTIME
    nanoseconds: int
    #: False sorts first: of equal times, sending comes before receiving
    received: bool
    #: numbers of the pair and of its end
    pair: int
    end: int
    data: bytes


def on_the_wire(captured: Iterable[CapturedFrame]) -> list[CapturedFrame]:
    """Return each frame once, in order: as captured at its sender's end, or else at its receiver's end.

    The tap of the sender's end does not see a frame that XDP sends back.
    """
    in_transit: Counter[tuple[int, int, bytes]] = Counter()
    frames = []
    for frame in sorted(captured):
        if not frame.received:
            in_transit[frame.pair, frame.end, frame.data] += 1
        elif in_transit[frame.pair, 1 - frame.end, frame.data]:
            in_transit[frame.pair, 1 - frame.end, frame.data] -= 1
            continue
        frames.append(frame)
    return frames


def pcap(frames: Iterable[CapturedFrame]) -> bytes:
    """Return a capture file with these frames."""
    file = io.BytesIO()
    writer = RawPcapWriter(file, linktype=_ETHERNET, nano=True)
    writer.write_header(None)
    for frame in frames:
        seconds, rest = divmod(frame.nanoseconds, 10**9)
        writer.write_packet(frame.data, sec=seconds, usec=rest)
    writer.flush()
    return file.getvalue()


class CapturePlugin:
    """Captures the traffic of every pair that a test creates."""

    def __init__(self) -> None:
        self._taps: list[tuple[int, int, socket.socket]] = []
        self._frames: list[CapturedFrame] = []
        self._pairs = 0
        netns.watch = self.watched

    @contextlib.contextmanager
    def watched(self, pair: Veth) -> Iterator[None]:
        """Capture frames at both ends during the block."""
        number, self._pairs = self._pairs, self._pairs + 1
        with contextlib.ExitStack() as stack:
            taps = [
                (number, end, stack.enter_context(_tap(interface)))
                for end, interface in enumerate((pair.near, pair.far))
            ]
            self._taps += taps
            try:
                yield
            finally:
                self._drain()
                self._taps = [interface for interface in self._taps if interface not in taps]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Drop the frames of the previous test."""
        self._frames.clear()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, Any, Any]:
        """Add the frames captured so far to the report of a failure."""
        report: pytest.TestReport = yield
        if report.failed:
            self._drain()
            if self._frames:
                content = base64.b64encode(pcap(on_the_wire(self._frames))).decode()
                report.user_properties.append((PCAP, content))
        return report

    def _drain(self) -> None:
        for pair, end, tap in self._taps:
            self._frames += _take_all(tap, pair, end)


def _tap(interface: Interface) -> socket.socket:
    with interface.namespace.entered():
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    # SO_RCVBUFFORCE
    tap.setsockopt(socket.SOL_SOCKET, 33, _ROOM)
    tap.setsockopt(socket.SOL_SOCKET, _TIMESTAMPNS, 1)
    traffic.keep_tags(tap)
    tap.bind((interface.name, traffic.ALL))
    return tap


def _take_all(tap: socket.socket, pair: int, end: int) -> Iterator[CapturedFrame]:
    while True:
        try:
            yield _take(tap, pair, end)
        except BlockingIOError:
            return
        except OSError as error:
            # ENETDOWN: the test has set the link down; reported once, before the later frames
            if error.errno != errno.ENETDOWN:
                raise


def _take(tap: socket.socket, pair: int, end: int) -> CapturedFrame:
    room = socket.CMSG_SPACE(_TIMESPEC.size) + traffic.TAG_SPACE
    data, ancillary, _, origin = tap.recvmsg(_FRAME, room)
    stamp = next(content for level, kind, content in ancillary if (level, kind) == (socket.SOL_SOCKET, _TIMESTAMPNS))
    seconds, nanoseconds = _TIMESPEC.unpack(stamp)
    frame = traffic.with_tag(data, ancillary)
    return CapturedFrame(seconds * 10**9 + nanoseconds, origin[2] != _OUTGOING, pair, end, frame)
