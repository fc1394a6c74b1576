"""What the hook sees of the wire: tags in metadata, aggregates, interfaces that change, counters that are large."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from pyroute2 import IPRoute
from pyroute2.ethtool.ioctl import IoctlEthtool
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from kernel_matrix.guest.bpf.loaders import Loader, Object
from kernel_matrix.guest.bpf.steps import XdpFlags
from kernel_matrix.guest.pytest.marks import refused_without, with_loaders
from kernel_matrix.guest.pytest.refusal import Refused
from kernel_matrix.guest.system import netns, traffic
from kernel_matrix.guest.system.netns import Interface, Veth
from suites.kernel_account import Table, helpers_called, maps_of
from suites.xdp.conftest import PROGRAM, Attached, Counters, attached
from suites.xdp.test_counting import FRAME, LENGTH, XDP_PASS, counted

ETHER = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
#: linux/udp.h
SOL_UDP, UDP_SEGMENT = 17, 103
#: linux/socket.h, linux/if_packet.h
SOL_PACKET, PACKET_VNET_HDR = 263, 15
#: the bytes of a tag: its EtherType and its number (IEEE 802.1Q)
TAG = 4


@contextmanager
def vlan(under: Interface, name: str, number: int) -> Iterator[Interface]:
    """Put a VLAN device on an interface; what it sends has its tag."""
    with under.namespace.entered(), IPRoute() as netlink:
        netlink.link("add", ifname=name, kind="vlan", link=under.index, vlan_id=number)
        index = socket.if_nametoindex(name)
        netlink.link("set", index=index, state="up")
        made = Interface(under.namespace, name, index, under.mac)
    netns.wait_until_it_sends(made)
    yield made


def tags_in_frames(interface: Interface) -> None:
    """Switch off that the interface takes the tag beside the frame (``ethtool -K NAME txvlan off``)."""
    with interface.namespace.entered(), closing(IoctlEthtool(interface.name)) as ethtool:
        features = ethtool.get_features()
        assert features["tx-vlan-hw-insert"]
        features["tx-vlan-hw-insert"] = False
        ethtool.set_features(features)
        assert not ethtool.get_features()["tx-vlan-hw-insert"]


def has_feature(interface: Interface, name: str) -> bool:
    """Return whether a feature of the interface is on (``ethtool -k``)."""
    with interface.namespace.entered(), closing(IoctlEthtool(interface.name)) as ethtool:
        return bool(ethtool.get_features()[name])


@pytest.mark.parametrize(("packet", "ipv4", "ipv6"), [(IP() / UDP(), 1, 0), (IPv6() / UDP(), 0, 1)], ids=["4", "6"])
def test_a_tag_beside_the_frame_is_not_seen(packet: IP, ipv4: int, ipv6: int, xdp: Attached, pair: Veth) -> None:
    """A blind spot: veth, like most cards, takes the tag in metadata (skb->vlan_tci), which is not in the XDP buffer.

    So a tagged frame counts without the four bytes of its tag, and by the type behind it.
    """
    frame = Ether(**ETHER) / packet
    data = bytes(frame)
    with vlan(pair.far, "tagged", 7) as tagged, traffic.receiver(pair.near) as receiver:
        traffic.send(tagged, frame, 5)
        assert receiver.frames(5) == [data[:12] + struct.pack("!HH", 0x8100, 7) + data[12:]] * 5
    assert xdp.counters(5) == Counters(5, 5 * len(data), 5 * ipv4, 5 * ipv6)


def test_a_tag_in_the_frame_is_part_of_it(xdp: Attached, pair: Veth) -> None:
    """The same device above an interface that takes no tags beside frames: four bytes more, and the tag's type."""
    tags_in_frames(pair.far)
    with vlan(pair.far, "tagged", 7) as tagged:
        traffic.send(tagged, FRAME, 5)
    assert xdp.counters(5) == Counters(5, 5 * (LENGTH + TAG), 0, 0)


def test_only_the_outer_tag_is_beside_the_frame(xdp: Attached, pair: Veth) -> None:
    """Two devices on each other: the lower one takes no tag beside the frame, so the inner tag is in it."""
    with vlan(pair.far, "outer", 7) as outer, vlan(outer, "inner", 9) as inner:
        traffic.send(inner, FRAME, 5)
    assert xdp.counters(5) == Counters(5, 5 * (LENGTH + TAG), 0, 0)


def test_an_aggregate_is_what_the_hook_gets(mode: XdpFlags, loaded: Object) -> None:
    """65000 bytes of UDP in segments of 1472 (udp(7), UDP_SEGMENT): what is counted is what the hook gets.

    In generic mode that is the whole aggregate, where the sender's interface takes one of UDP (veth of 5.10 does not);
    one of 65536 bytes or more is cut before (gso_max_size). In native mode veth takes none (veth_fix_features()), so it
    is 44 full frames and one of 232 bytes of data. Before it the sender asks for the address, 14 + 28 bytes.
    """
    size, segment = 65000, 1472
    headers = 14 + 20 + 8
    full, rest = divmod(size, segment)
    assert (full, rest) == (44, 232)
    with netns.veth() as pair, attached(loaded, pair.near, mode) as xdp:
        netns.address(pair.near, "10.0.0.1/24")
        netns.address(pair.far, "10.0.0.2/24")
        with pair.far.namespace.entered():
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            client.setsockopt(SOL_UDP, UDP_SEGMENT, segment)
            assert client.sendto(b"x" * size, ("10.0.0.1", 5000)) == size
        aggregates = has_feature(pair.far, "tx-udp-segmentation")
        assert not (aggregates and mode is XdpFlags.NATIVE)
        frames = [headers + size] if aggregates else [headers + segment] * full + [headers + rest]
        expected = Counters(1 + len(frames), 14 + 28 + sum(frames), len(frames), 0)
        assert xdp.counters(expected.packets) == expected


def test_a_frame_may_be_larger_than_16_bits(mode: XdpFlags, loaded: Object) -> None:
    """70000 bytes of TCP over IPv6, to be cut into segments of 1400 (virtio_net.h: GSO_TCPV6), from a packet socket.

    Kernels with BIG TCP let interfaces take aggregates of 64 kB and more (7c4e983c4f3c, "net: allow gso_max_size to
    exceed 65536"): then the hook gets one in generic mode. Elsewhere it is cut before, as it always is in native mode.
    """
    size, segment, limit = 70_000, 1400, 100_000
    headers = 14 + 40 + 20
    frame = bytes(Ether(**ETHER) / IPv6(plen=0, nh=6) / TCP())
    frame += bytes(size - len(frame))
    # flags NEEDS_CSUM, type, bytes that are in no page of their own (sock_alloc_send_pskb() takes 16 of those on older
    # kernels), segment, where the checksum starts, and its offset from there
    aggregate = struct.pack("=BBHHHH", 1, 4, 8000, segment, 14 + 40, 16)
    with (
        netns.veth() as pair,
        attached(loaded, pair.near, mode) as xdp,
        traffic.receiver(pair.near, longest=1 << 17) as receiver,
    ):
        with pair.far.namespace.entered(), IPRoute() as netlink:
            (link,) = netlink.link("get", index=pair.far.index)
            whole = link.get_attr("IFLA_TSO_MAX_SIZE", 0) >= limit and mode is XdpFlags.GENERIC
            if link.get_attr("IFLA_TSO_MAX_SIZE", 0) >= limit:
                netlink.link("set", index=pair.far.index, gso_max_size=limit)
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
                out.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
                out.bind((pair.far.name, 0))
                assert out.send(aggregate + frame) == len(aggregate + frame)
        full, rest = divmod(size - headers, segment)
        assert (full, rest) == (49, 1326)
        frames = [size] if whole else [headers + segment] * full + [headers + rest]
        assert xdp.counters(len(frames)) == Counters(len(frames), sum(frames), 0, len(frames))
        received = receiver.frames(len(frames))
        assert [len(one) for one in received] == frames
        assert received == [frame] or not whole


@refused_without("xdp_test_run_runts", errno.EINVAL, stage="test_run")
@with_loaders("libbpf")
def test_a_frame_without_a_whole_header_counts(loader: Loader, compiled: Path) -> None:
    """Of each length that BPF_PROG_TEST_RUN takes: without an EtherType it is neither IPv4 nor IPv6, and it passes."""
    with loader.opened(compiled) as obj:
        layout, counters = obj.layout("xdp_counters", Counters), obj.map("counters")
        for length in range(1, 14):
            data = b"\x08\x00\x86\xdd\x08\x00\x86\xdd\x08\x00\x86\xdd\x08"[:length]
            assert obj.test_run(PROGRAM, data) == (XDP_PASS, data)
        assert sum(map(layout.decode, counters.get_each_cpu(0)), Counters()) == Counters(13, sum(range(1, 14)), 0, 0)


def test_no_interface_has_a_frame_without_a_header(pair: Veth) -> None:
    """A packet socket refuses it (dev_validate_header())."""
    with pytest.raises(OSError, match="Invalid argument"):
        traffic.send(pair.far, bytes(13))


def test_counting_survives_a_new_name(xdp: Attached, pair: Veth) -> None:
    """A program is attached to the interface, not to its name."""
    traffic.send(pair.far, FRAME, 3)
    with pair.near.namespace.entered(), IPRoute() as netlink:
        netlink.link("set", index=pair.near.index, state="down")
        netlink.link("set", index=pair.near.index, ifname="renamed")
        netlink.link("set", index=pair.near.index, state="up")
    netns.wait_until_it_sends(pair.far)
    traffic.send(pair.far, FRAME, 4)
    assert xdp.counters(7) == counted(7)


def test_counting_survives_another_namespace(xdp: Attached, pair: Veth) -> None:
    """Moving an interface takes it down and keeps its program (net/core/dev.c, dev_change_net_namespace())."""
    traffic.send(pair.far, FRAME, 3)
    assert xdp.counters(3) == counted(3)
    with netns.namespace() as other:
        for here, there in ((pair.near.namespace, other), (other, pair.near.namespace)):
            with here.entered(), IPRoute() as netlink:
                netlink.link("set", index=socket.if_nametoindex("near"), net_ns_fd=there.fd)
            with there.entered(), IPRoute() as netlink:
                netlink.link("set", index=socket.if_nametoindex("near"), state="up")
            netns.wait_until_it_sends(pair.far)
            traffic.send(pair.far, FRAME, 2)
            with there.entered():
                assert xdp.counters(5 if there is other else 7) == counted(5 if there is other else 7)


#: its map is written for all processors at once, which the other loaders' programs do not do
@with_loaders("libbpf")
def test_counters_have_64_bits(loader: Loader, compiled: Path, mode: XdpFlags, pair: Veth) -> None:
    """From just below 2^32 on; each counter another value, so that none is mistaken for another."""
    frames = [FRAME, Ether(**ETHER) / IPv6() / UDP() / Raw(b"x" * 30), Ether(**ETHER) / Dot1Q(vlan=3) / IP()]
    with loader.opened(compiled) as obj:
        layout, counters = obj.layout("xdp_counters", Counters), obj.map("counters")
        cpus = len(counters.get_each_cpu(0))
        assert layout.size == 4 * 8
        counters.put(0, struct.pack("<4Q", (1 << 32) - 1, (1 << 32) - 9, (1 << 32) - 1, (1 << 32) - 1) * cpus)
        with attached(obj, pair.near, mode) as xdp:
            for frame in frames:
                traffic.send(pair.far, frame, 2)
            assert xdp.counters(6) == Counters(6, 2 * sum(len(bytes(frame)) for frame in frames), 2, 2)
            assert sum(count.packets for count in map(layout.decode, counters.get_each_cpu(0))) > cpus << 32


@with_loaders("libbpf")
def test_the_counters_are_one_entry_for_each_processor(loader: Loader, compiled: Path) -> None:
    """An array of one entry, 32 bytes for each processor."""
    with loader.opened(compiled):
        assert maps_of(PROGRAM) == {"counters": Table("percpu_array", 1, 4, 32)}


@with_loaders("libbpf")
def test_no_processor_or_time_decides_what_counts(loader: Loader, compiled: Path) -> None:
    """The only helper is bpf_map_lookup_elem (1): guests have two processors, machines have more."""
    assert loader.name == "libbpf"
    assert helpers_called(compiled) == {1}


def test_frames_of_several_buffers_are_refused(loaded: Object, refused: Refused) -> None:
    """It would count the first buffer alone, so it does not say that it takes more (the section is no xdp.frags).

    In native mode veth takes no program then whose frames may be larger than a buffer (veth_xdp_set(): ERANGE).
    """
    with netns.veth(mtu=9000) as pair, refused(errno.ERANGE, stage="attach"):
        Attached(loaded, pair.near, XdpFlags.NATIVE)
