"""Generated frames, and what docs/programs.md promises for each of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import strategies as st

from suites.xdp.conftest import Counters

#: the shortest frame (ETH_HLEN), and where its type is
_HEADER, _TYPE = 14, slice(12, 14)
#: tags in a frame, at most; of each number of them there is a frame for each of three types
_DEPTH = 8
#: frames of a family: whole, cut somewhere, and cut near its innermost type
FRAMES = (_DEPTH + 1) * 3 * 3
#: where a frame is cut somewhere: in the headers, or little behind them
_CUTS = 64
#: the longest rest: in a page there is room for it, and for what the kernel adds (net/bpf/test_run.c, bpf_test_init())
_LONGEST = 3072

_IPV4, _IPV6 = 0x0800, 0x86DD
#: tag protocol identifiers: 802.1Q, 802.1ad, and two that were in use before it
_TAGS = (0x8100, 0x88A8, 0x9100, 0x9200)
#: ARP, LLDP, MPLS, PPPoE, the types of IP with their bytes swapped or one bit off, the ends of lengths (802.3)
_OTHERS = (0x0806, 0x88CC, 0x8847, 0x8864, 0x0008, 0xDD86, 0x0801, 0x0900, 0x86DC, 0x06DD, 0, 0x05DC, 0x0600, 0xFFFF)


@dataclass(frozen=True, slots=True)
class Family:
    """Frames with the same addresses and body, around IPv4, IPv6 and a type of any kind, in no to all of the tags."""

    addresses: bytes
    #: each tag's type and its control information, from the outermost
    tags: tuple[tuple[int, int], ...]
    type: int
    #: how the body begins
    header: bytes
    #: how many bytes follow, and the seed of their content
    rest: int
    content: int
    #: behind which byte the first frame is cut, the next one a byte later
    cut: int
    #: how many bytes behind its innermost type each is cut, too
    behind: int

    def frames(self) -> list[bytes]:
        """Return all frames, the shortest first."""
        return sorted(self._frames(), key=len)

    def _frames(self) -> Iterator[bytes]:
        body = self.header + random.Random(self.content).randbytes(self.rest)
        kinds = [(depth, kind) for depth in range(_DEPTH + 1) for kind in (_IPV4, _IPV6, self.type)]
        for number, (depth, kind) in enumerate(kinds):
            words = [*(word for tag in self.tags[:depth] for word in tag), kind]
            head = self.addresses + b"".join(word.to_bytes(2, "big") for word in words)
            frame = head + body
            yield from (frame, frame[: (self.cut + number) % _CUTS], frame[: len(head) + self.behind])


#: zeros, everybody's, types in their place, anything
_ADDRESSES = st.sampled_from((bytes(12), b"\xff" * 12, b"\x08\x00" * 6, b"\x86\xdd" * 6)) | st.binary(
    min_size=12, max_size=12
)
_TAG = st.tuples(
    st.sampled_from(_TAGS[:2]) | st.sampled_from(_TAGS), st.sampled_from((0, _IPV4, _IPV6)) | st.integers(0, 0xFFFF)
)
#: nothing, the beginning of a packet of IPv4 or IPv6, types where a body begins, anything
_HEADERS = st.sampled_from((b"", b"\x45" + bytes(19), b"\x60" + bytes(39), b"\x08\x00" * 4, b"\x86\xdd" * 4))
FAMILIES = st.builds(
    Family,
    addresses=_ADDRESSES,
    tags=st.tuples(*[_TAG] * _DEPTH),
    type=st.sampled_from(_OTHERS) | st.sampled_from(_TAGS) | st.integers(0, 0xFFFF),
    header=_HEADERS | st.binary(max_size=40),
    # with 14 bytes before it the largest frame of a wire, with 18 that with a tag
    rest=st.just(0) | st.integers(0, 64) | st.integers(0, _LONGEST) | st.sampled_from((1500, 2048, _LONGEST)),
    content=st.integers(0, 0xFFFF),
    cut=st.integers(0, _CUTS - 1),
    behind=st.integers(-3, 24),
)


def counts_as(frame: bytes, *, runts: bool) -> Counters | None:
    """Return what the frame counts; None for one that is too short to be run, where the kernel runs no runts."""
    if len(frame) < _HEADER:
        return Counters(packets=1, bytes=len(frame)) if runts else None
    kind = int.from_bytes(frame[_TYPE], "big")
    return Counters(packets=1, bytes=len(frame), ipv4=int(kind == _IPV4), ipv6=int(kind == _IPV6))
