"""Send and receive frames on an interface unchanged, without the kernel's protocols."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from scapy.packet import Packet

from kernel_matrix.guest.system.deadline import wait_until
from kernel_matrix.guest.system.netns import Interface

#: ETH_P_ALL of linux/if_ether.h
ALL = 0x0003
# linux/if_packet.h
_SOL_PACKET = 263
_PACKET_AUXDATA = 8
_VLAN_VALID = 1 << 4
_TPID_VALID = 1 << 6
#: a veth in native mode queues 256 frames for a receiver that has not been scheduled (VETH_RING_SIZE,
#: drivers/net/veth.c), and the last 15 that were received may still occupy it (__ptr_ring_discard_one frees in batches
#: of 16); further frames are dropped, since 151e887d8ff9 with ENOBUFS for a packet socket
AT_ONCE = 240
#: struct tpacket_auxdata: status, lengths, offsets, tag
_AUXDATA = struct.Struct("=IIIHHHH")
#: size of its control message
TAG_SPACE = socket.CMSG_SPACE(_AUXDATA.size)
#: sll_pkttype of a frame that this host sends (linux/if_packet.h)
_OUTGOING = 4


def send(interface: Interface, frame: Packet | bytes, count: int = 1, *, cpu: int | None = None) -> None:
    """Send a frame ``count`` times from an interface, with ``cpu`` from that processor.

    A test that sends more than AT_ONCE frames must send them in parts, and wait after each until the other end has
    received it.
    """
    if count > AT_ONCE:
        raise ValueError(f"{count} frames at once: a veth's ring does not hold more than {AT_ONCE} for certain")
    data = bytes(frame)
    before = os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        with interface.namespace.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
            out.bind((interface.name, 0))
            for _ in range(count):
                if out.send(data) != len(data):
                    raise OSError(f"a frame of {len(data)} bytes was sent in part")
    finally:
        os.sched_setaffinity(0, before)


class Receiver:
    """Receives an interface's frames, after XDP and before the protocols."""

    def __init__(self, sock: socket.socket, longest: int) -> None:
        self._socket = sock
        self._longest = longest
        self._frames: list[bytes] = []

    def frames(self, count: int) -> list[bytes]:
        """Wait for at least ``count`` frames; return all frames so far. Raises TimeoutError."""
        wait_until(lambda: len(self._drain()) >= count, f"{count} frames", seconds=5)
        return list(self._frames)

    def _drain(self) -> list[bytes]:
        while True:
            try:
                data, ancillary, _, origin = self._socket.recvmsg(self._longest, TAG_SPACE)
            except BlockingIOError:
                return self._frames
            if origin[2] != _OUTGOING:
                self._frames.append(with_tag(data, ancillary))


def keep_tags(sock: socket.socket) -> None:
    """Let a packet socket report the outer VLAN tag of the frames that it receives."""
    sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)


def with_tag(data: bytes, ancillary: list[tuple[int, int, bytes]]) -> bytes:
    """Insert the outer VLAN tag again, which the stack removes before any receiver (skb_vlan_untag)."""
    for level, kind, content in ancillary:
        if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
            status, *_, tci, tpid = _AUXDATA.unpack(content)
            if status & _VLAN_VALID:
                return data[:12] + struct.pack("!HH", tpid if status & _TPID_VALID else 0x8100, tci) + data[12:]
    return data


@contextmanager
def receiver(interface: Interface, longest: int = 1 << 16) -> Iterator[Receiver]:
    """Receive every frame that arrives at an interface from now on; none has more bytes than ``longest``."""
    with interface.namespace.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ALL))
    with sock:
        # SO_RCVBUFFORCE: room for every frame of the largest burst, at about two kilobytes each
        sock.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)
        keep_tags(sock)
        sock.bind((interface.name, ALL))
        yield Receiver(sock, longest)
