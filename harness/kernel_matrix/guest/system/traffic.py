"""Frames onto and off an interface, byte for byte, past the protocols of the kernel."""

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
#: drivers/net/veth.c), and the last 15 that it has taken may not be free yet (__ptr_ring_discard_one frees in batches
#: of 16); what is beyond is dropped, since 151e887d8ff9 with ENOBUFS for a packet socket
AT_ONCE = 240
#: struct tpacket_auxdata: status, lengths, offsets, tag
_AUXDATA = struct.Struct("=IIIHHHH")
#: room for it beside a frame
TAG_SPACE = socket.CMSG_SPACE(_AUXDATA.size)
#: sll_pkttype of a frame that this host sends (linux/if_packet.h)
_OUTGOING = 4


def send(interface: Interface, frame: Packet | bytes, count: int = 1, *, cpu: int | None = None) -> None:
    """Send a frame ``count`` times from an interface; with ``cpu`` from that processor.

    A longer run than AT_ONCE is for the test to cut into pieces, waiting after each until the other end has taken it.
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
    """Takes what an interface receives, after XDP and before the protocols."""

    def __init__(self, taken: socket.socket) -> None:
        self._socket = taken
        self._frames: list[bytes] = []

    def frames(self, count: int) -> list[bytes]:
        """Return all frames so far, once they are at least ``count``; raises TimeoutError."""
        wait_until(lambda: len(self._drain()) >= count, f"{count} frames", seconds=5)
        return list(self._frames)

    def _drain(self) -> list[bytes]:
        while True:
            try:
                data, ancillary, _, origin = self._socket.recvmsg(1 << 16, TAG_SPACE)
            except BlockingIOError:
                return self._frames
            if origin[2] != _OUTGOING:
                self._frames.append(with_tag(data, ancillary))


def keep_tags(taken: socket.socket) -> None:
    """Let a packet socket tell the outer VLAN tag of what it receives."""
    taken.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)


def with_tag(data: bytes, ancillary: list[tuple[int, int, bytes]]) -> bytes:
    """Put back the outer VLAN tag, which the stack takes off in front of every receiver (skb_vlan_untag)."""
    for level, kind, content in ancillary:
        if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
            status, *_, tci, tpid = _AUXDATA.unpack(content)
            if status & _VLAN_VALID:
                return data[:12] + struct.pack("!HH", tpid if status & _TPID_VALID else 0x8100, tci) + data[12:]
    return data


@contextmanager
def receiver(interface: Interface) -> Iterator[Receiver]:
    """Receive everything that arrives at an interface from now on."""
    with interface.namespace.entered():
        taken = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ALL))
    with taken:
        # SO_RCVBUFFORCE: room for every frame of the largest burst, at about two kilobytes each
        taken.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)
        keep_tags(taken)
        taken.bind((interface.name, ALL))
        yield Receiver(taken)
