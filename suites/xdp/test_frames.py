"""Every frame counts once, by its length on the wire and its own EtherType."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, LLC, Dot1Q, Dot3, Ether
from scapy.packet import Packet, Raw

from kernel_matrix.guest.system import traffic
from kernel_matrix.guest.system.netns import Veth
from suites.xdp.conftest import Attached, Counters

#: a locally administered destination that is nobody's: the stack takes the frame for another host's and drops it
#: behind XDP and behind the test's receiver
ETHER = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
#: how often each frame is sent: enough that a frame counted twice or lost shows, whatever its length
COUNT = 7

#: name -> frame, counts as IPv4, counts as IPv6
FRAMES: dict[str, tuple[Packet, int, int]] = {
    # 14 bytes Ethernet + 20 IPv4 + 8 UDP + 20
    "ipv4 udp": (Ether(**ETHER) / IP() / UDP() / Raw(b"x" * 20), 1, 0),
    "ipv4 tcp": (Ether(**ETHER) / IP() / TCP(), 1, 0),
    "ipv4 icmp": (Ether(**ETHER) / IP() / ICMP(), 1, 0),
    # a later fragment has no transport header, and is IPv4 all the same
    "ipv4 fragment": (Ether(**ETHER) / IP(frag=100, flags="MF") / Raw(b"x" * 64), 1, 0),
    "ipv4 options": (Ether(**ETHER) / IP(options=[b"\x01" * 4]) / UDP(), 1, 0),
    "ipv6 udp": (Ether(**ETHER) / IPv6() / UDP() / Raw(b"x" * 20), 0, 1),
    "ipv6 no next header": (Ether(**ETHER) / IPv6(nh=59), 0, 1),
    # the EtherType decides, not the version in the header behind it
    "ipv6 behind the type of ipv4": (Ether(**ETHER, type=0x0800) / Raw(bytes(IPv6() / UDP())), 1, 0),
    "arp request": (Ether(**{**ETHER, "dst": "ff:ff:ff:ff:ff:ff"}) / ARP(pdst="10.0.0.1"), 0, 0),
    # a tag is part of the frame on the wire, and its EtherType is the frame's
    "802.1Q around ipv4": (Ether(**ETHER) / Dot1Q(vlan=7) / IP() / UDP() / Raw(b"x" * 20), 0, 0),
    "802.1Q around ipv6": (Ether(**ETHER) / Dot1Q(vlan=4094, prio=7) / IPv6() / UDP(), 0, 0),
    "QinQ around ipv4": (Ether(**ETHER, type=0x88A8) / Dot1Q(vlan=2) / Dot1Q(vlan=3) / IP() / UDP(), 0, 0),
    "lldp": (Ether(**{**ETHER, "dst": "01:80:c2:00:00:0e"}, type=0x88CC) / Raw(b"\0" * 46), 0, 0),
    "mpls": (Ether(**ETHER, type=0x8847) / Raw(b"\x00\x01\x01\x40" + bytes(IP() / UDP())), 0, 0),
    "local experimental type": (Ether(**ETHER, type=0x88B5) / Raw(b"x" * 100), 0, 0),
    # below 0x600 the field is a length (IEEE 802.3)
    "802.3 with LLC": (Dot3(**ETHER) / LLC(dsap=0x42, ssap=0x42, ctrl=3) / Raw(b"\0" * 35), 0, 0),
    # byte-swapped types are what a forgotten ntohs would take for IP
    "type 0x0008": (Ether(**ETHER, type=0x0008) / Raw(b"x" * 46), 0, 0),
    "type 0xDD86": (Ether(**ETHER, type=0xDD86) / Raw(b"x" * 46), 0, 0),
    # veth pads nothing: the smallest frame is a header alone
    "header alone": (Ether(**ETHER, type=0x88B5), 0, 0),
    # the packet is cut off, the frame says IPv4: what is counted is frames
    "ipv4 type alone": (Ether(**ETHER, type=0x0800), 1, 0),
    "ipv6 type and one byte": (Ether(**ETHER, type=0x86DD) / Raw(b"\x60"), 0, 1),
    # ETH_ZLEN: the shortest frame of a real wire without its checksum
    "60 bytes": (Ether(**ETHER) / IP() / Raw(b"x" * 26), 1, 0),
    # MTU 1500 + 14 bytes of Ethernet
    "largest frame": (Ether(**ETHER) / IP() / Raw(b"x" * 1480), 1, 0),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_counts_once_by_its_length_and_type_and_arrives(name: str, xdp: Attached, pair: Veth) -> None:
    """And what was sent arrives behind the program, byte for byte: it never drops."""
    frame, ipv4, ipv6 = FRAMES[name]
    data = bytes(frame)
    with traffic.receiver(pair.near) as receiver:
        traffic.send(pair.far, frame, COUNT)
        assert receiver.frames(COUNT) == [data] * COUNT
    assert xdp.counters(COUNT) == Counters(packets=COUNT, bytes=COUNT * len(data), ipv4=COUNT * ipv4, ipv6=COUNT * ipv6)


def test_the_frames_have_the_lengths_they_are_named_for() -> None:
    """The table above is about lengths: scapy must not have padded or cut them."""
    lengths = {name: len(bytes(frame)) for name, (frame, _, _) in FRAMES.items()}
    assert lengths["ipv4 udp"] == 14 + 20 + 8 + 20
    assert lengths["802.1Q around ipv4"] == 14 + 4 + 20 + 8 + 20
    assert lengths["QinQ around ipv4"] == 14 + 4 + 4 + 20 + 8
    assert lengths["header alone"] == 14
    assert lengths["60 bytes"] == 60
    assert lengths["largest frame"] == 1514


def test_frames_of_all_kinds_add_up(xdp: Attached, pair: Veth) -> None:
    """One after another, each kind a different number of times."""
    expected = Counters()
    for times, (frame, ipv4, ipv6) in enumerate(FRAMES.values(), 1):
        traffic.send(pair.far, frame, times)
        expected += Counters(times, times * len(bytes(frame)), times * ipv4, times * ipv6)
        assert xdp.counters(expected.packets) == expected
