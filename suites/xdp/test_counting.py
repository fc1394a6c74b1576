"""Where and when frames count."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from pyroute2 import IPRoute
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from kernel_matrix.guest.bpf.loaders import Loader, Object
from kernel_matrix.guest.bpf.steps import XdpFlags
from kernel_matrix.guest.pytest.marks import refused_by
from kernel_matrix.guest.system import netns, traffic
from kernel_matrix.guest.system.deadline import limit
from kernel_matrix.guest.system.netns import Interface, Veth
from suites.xdp.conftest import PROGRAM, Attached, Counters, attached

ETHER = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
FRAME = Ether(**ETHER) / IP() / UDP() / Raw(b"x" * 58)
#: 14 + 20 + 8 + 58
LENGTH = 100
#: XDP_PASS of linux/bpf.h
XDP_PASS = 2


def counted(packets: int) -> Counters:
    """Return what that many of FRAME count."""
    return Counters(packets, packets * LENGTH, packets, 0)


def test_nothing_counts_before_anything_is_sent(xdp: Attached) -> None:
    """A quiet interface is quiet: no frame of the kernel's own comes between."""
    assert xdp.counters() == Counters()


def test_a_loaded_counter_starts_at_zero(loader: Loader, compiled: Path) -> None:
    """On every processor."""
    with loader.opened(compiled) as obj:
        layout = obj.layout("xdp_counters", Counters)
        assert {layout.decode(value) for value in obj.map("counters").get_each_cpu(0)} == {Counters()}


def test_a_burst_is_counted_to_the_last_frame(xdp: Attached, pair: Veth) -> None:
    """5000 frames, each piece of 200 as fast as the sender can."""
    with traffic.receiver(pair.near) as receiver:
        for sent in range(200, 5001, 200):
            traffic.send(pair.far, FRAME, 200)
            assert len(receiver.frames(sent)) == sent
    assert xdp.counters(5000) == counted(5000)


def test_what_the_interface_itself_sends_does_not_count(xdp: Attached, pair: Veth) -> None:
    """XDP is on the way in: frames of the near end pass the far one, and only the reply counts."""
    with traffic.receiver(pair.far) as receiver:
        traffic.send(pair.near, FRAME, 10)
        assert len(receiver.frames(10)) == 10
    traffic.send(pair.far, FRAME, 1)
    assert xdp.counters(1) == counted(1)


@pytest.mark.parametrize("end", ["near", "far"])
def test_a_new_pair_loses_nothing(end: str) -> None:
    """A condition of every count here: the kernel drops without an error what is sent too early."""
    for _ in range(10):
        with netns.veth() as pair:
            sender, taker = (pair.near, pair.far) if end == "near" else (pair.far, pair.near)
            with traffic.receiver(taker) as receiver:
                traffic.send(sender, FRAME)
                assert len(receiver.frames(1)) == 1


def test_counting_stops_at_detach_and_goes_on_at_attach(xdp: Attached, pair: Veth) -> None:
    """The counters belong to the loaded object: they stay while it is off the interface."""
    with traffic.receiver(pair.near) as receiver:
        traffic.send(pair.far, FRAME, 5)
        receiver.frames(5)
        assert xdp.counters(5) == counted(5)
        xdp.detach()
        traffic.send(pair.far, FRAME, 9)
        receiver.frames(5 + 9)
        assert xdp.counters() == counted(5)
        xdp.attach()
        traffic.send(pair.far, FRAME, 2)
        receiver.frames(5 + 9 + 2)
    assert xdp.counters(7) == counted(7)


def test_counting_survives_the_link_going_down_and_up(xdp: Attached, pair: Veth) -> None:
    """The program stays on an interface that is switched off."""
    traffic.send(pair.far, FRAME, 3)
    assert xdp.counters(3) == counted(3)
    with pair.near.namespace.entered(), IPRoute() as netlink:
        netlink.link("set", index=pair.near.index, state="down")
        netlink.link("set", index=pair.near.index, state="up")
    # the far end has lost its carrier for a moment
    netns.wait_until_it_sends(pair.far)
    traffic.send(pair.far, FRAME, 4)
    assert xdp.counters(7) == counted(7)


def test_two_interfaces_count_apart(xdp: Attached, pair: Veth, attach: Callable[[Interface], Attached]) -> None:
    """Each loaded object has its own counters."""
    other = attach(pair.far)
    traffic.send(pair.far, FRAME, 3)
    traffic.send(pair.near, FRAME, 8)
    assert xdp.counters(3) == counted(3)
    assert other.counters(8) == counted(8)


def test_each_processor_counts_its_own(xdp: Attached, pair: Veth) -> None:
    """A veth pair receives on the processor that sends, so a pinned sender says where its frames count."""
    cpus = sorted(os.sched_getaffinity(0))[:2]
    assert len(cpus) == 2, "the guest has two processors"
    for cpu, count in zip(cpus, (30, 50), strict=True):
        traffic.send(pair.far, FRAME, count, cpu=cpu)
    assert xdp.counters(80) == counted(80)
    per_cpu = xdp.each_cpu()
    assert [per_cpu[cpu] for cpu in cpus] == [counted(30), counted(50)]


@pytest.mark.parametrize("mtu", [3000])
def test_a_jumbo_frame_counts_whole(mtu: int, mode: XdpFlags, loaded: Object) -> None:
    """3000 bytes and a header still fit into the one buffer that native mode has."""
    frame = Ether(**ETHER) / IP() / Raw(b"x" * (mtu - 20))
    with (
        netns.veth(mtu=mtu) as pair,
        attached(loaded, pair.near, mode) as xdp,
        traffic.receiver(pair.near) as receiver,
    ):
        traffic.send(pair.far, frame, 5)
        assert xdp.counters(5) == Counters(packets=5, bytes=5 * (mtu + 14), ipv4=5, ipv6=0)
        assert receiver.frames(5) == [bytes(frame)] * 5


def test_loopback_counts_each_frame_once(loaded: Object) -> None:
    """What lo sends it receives; a UDP datagram is 14 + 20 + 8 + payload there, too."""
    with netns.namespace() as place:
        lo = netns.loopback(place)
        with attached(loaded, lo, XdpFlags.GENERIC) as xdp, place.entered():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
                server.bind(("127.0.0.1", 0))
                server.settimeout(limit(5))
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                    for _ in range(6):
                        client.sendto(b"x" * 58, server.getsockname())
                assert [server.recv(100) for _ in range(6)] == [b"x" * 58] * 6
            assert xdp.counters(6) == counted(6)


def test_the_stacks_own_traffic_passes_and_counts(mode: XdpFlags, loaded: Object) -> None:
    """UDP over IPv4 through both stacks: per direction one ARP frame and the datagrams.

    The client resolves the server by ARP (28 + 14 bytes: one request in; the reply goes out), and the server learns
    the client's address from that request, so it asks nothing itself.
    """
    with netns.veth() as pair, attached(loaded, pair.near, mode) as xdp:
        netns.address(pair.near, "10.0.0.1/24")
        netns.address(pair.far, "10.0.0.2/24")
        with pair.near.namespace.entered():
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with server:
            server.bind(("10.0.0.1", 5000))
            server.settimeout(limit(5))
            with pair.far.namespace.entered():
                client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            with client:
                client.connect(("10.0.0.1", 5000))
                client.settimeout(limit(5))
                for number in range(10):
                    client.send(bytes([number]) * 58)
                    data, origin = server.recvfrom(100)
                    assert data == bytes([number]) * 58
                    server.sendto(data, origin)
                    assert client.recv(100) == data
        assert xdp.counters(11) == Counters(packets=11, bytes=14 + 28 + 10 * LENGTH, ipv4=10, ipv6=0)


#: EtherTypes whose neighbours in bits and bytes are no IP: the two counted, both swapped, tags, one bit away, lengths
TYPES = (0x0800, 0x86DD, 0x0008, 0xDD86, 0x8100, 0x88A8, 0x0801, 0x0900, 0x86DC, 0x87DD, 0x00DD, 0x8600, 0, 0x05DC)


@refused_by("bcc", 0, stage="test_run", reason="bcc has no function that runs a program on data")
def test_every_frame_passes_and_counts_whatever_is_in_it(loader: Loader, compiled: Path) -> None:
    """Frames of all lengths from 14 bytes on, then random ones up to 1514, each of every type, from a fixed seed.

    The verdict is XDP_PASS, the data stays as it was, and the four counters are those of a model of one line. The
    kernel takes no frame shorter than an Ethernet header here (bpf_prog_test_run_xdp).
    """
    source = random.Random(20_26)
    expected = Counters()
    lengths = [*range(14, 14 + 48), *(source.randint(14, 1514) for _ in range(252))]
    with loader.opened(compiled) as obj:
        for index, length in enumerate(lengths):
            kind = TYPES[index % len(TYPES)]
            data = source.randbytes(12) + kind.to_bytes(2, "big") + source.randbytes(length - 14)
            assert obj.test_run(PROGRAM, data) == (XDP_PASS, data)
            expected += Counters(1, length, kind == 0x0800, kind == 0x86DD)
        layout = obj.layout("xdp_counters", Counters)
        assert sum((layout.decode(value) for value in obj.map("counters").get_each_cpu(0)), Counters()) == expected
