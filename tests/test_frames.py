"""Frames from any cut of the bytes that hold them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.shared.channel import frames
from kernel_matrix.shared.channel.frames import Begin, Reader


@given(st.lists(st.tuples(st.sampled_from([frames.INPUT, frames.OUTPUT]), st.binary(max_size=40))), st.integers(1, 9))
def test_frames_come_out_as_they_went_in_however_they_are_cut(messages: list[tuple[bytes, bytes]], step: int) -> None:
    data = b"".join(frames.frame(kind, payload) for kind, payload in messages)
    reader = Reader()
    assert [message for at in range(0, len(data), step) for message in reader.feed(data[at : at + step])] == messages


@given(st.lists(st.text()), st.none() | st.tuples(st.integers(0, 500), st.integers(0, 500)), st.text())
def test_what_is_to_be_run_survives_its_frame(words: list[str], size: tuple[int, int] | None, term: str) -> None:
    begin = Begin(tuple(words), size, term)
    ((kind, payload),) = Reader().feed(begin.encoded())
    assert kind == frames.BEGIN
    assert Begin.of(payload) == begin


def test_numbers_and_sizes_are_read_back() -> None:
    payloads = dict(Reader().feed(frames.number(frames.EXIT, 255) + frames.size(24, 80)))
    assert frames.number_of(payloads[frames.EXIT]) == 255
    assert tuple(frames.size_of(payloads[frames.SIZE])) == (24, 80)
