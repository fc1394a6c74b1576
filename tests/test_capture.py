"""Which frames went over a pair, from what was seen at its ends."""

from __future__ import annotations

import io

from scapy.utils import RawPcapReader

from kernel_matrix.guest.pytest.capture import CapturedFrame, on_the_wire, pcap

NEAR, FAR = 0, 1


def sent(at: int, end: int, data: bytes, pair: int = 0) -> CapturedFrame:
    return CapturedFrame(at, False, pair, end, data)


def received(at: int, end: int, data: bytes, pair: int = 0) -> CapturedFrame:
    return CapturedFrame(at, True, pair, end, data)


def test_a_frame_that_is_seen_at_both_ends_went_once() -> None:
    frames = [received(2, NEAR, b"a"), sent(1, FAR, b"a"), sent(3, FAR, b"a"), received(3, NEAR, b"a")]
    assert on_the_wire(frames) == [sent(1, FAR, b"a"), sent(3, FAR, b"a")]


def test_a_frame_that_xdp_drops_went_all_the_same() -> None:
    assert on_the_wire([sent(1, FAR, b"a")]) == [sent(1, FAR, b"a")]


def test_a_frame_that_xdp_sends_back_is_there_both_ways() -> None:
    there, back = sent(1, FAR, b"a"), received(2, FAR, b"a")
    assert on_the_wire([there, back]) == [there, back]


def test_another_pairs_frame_is_another() -> None:
    frames = [sent(1, FAR, b"a", pair=0), received(2, NEAR, b"a", pair=1)]
    assert on_the_wire(frames) == frames


def test_a_capture_file_has_the_frames_and_their_times() -> None:
    content = pcap([sent(1_700_000_000_123_456_789, FAR, b"x" * 60), sent(1_700_000_001_000_000_000, NEAR, b"y")])
    read = [(data, about.sec, about.usec) for data, about in RawPcapReader(io.BytesIO(content))]
    assert read == [(b"x" * 60, 1_700_000_000, 123_456_789), (b"y", 1_700_000_001, 0)]
