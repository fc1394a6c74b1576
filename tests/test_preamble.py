"""Where the preamble of a conversation ends, read from real execnet messages and from any cut of them."""

from __future__ import annotations

import io

import pytest
from execnet.gateway_base import Message, dumps_internal
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.relay import preamble
from kernel_matrix.shared.channel import frames

BOOTSTRAP = b"'serve(io, id=\\'gw3-worker\\')'\n"


def messages(*pairs: tuple[int, object]) -> bytes:
    stream = io.BytesIO()
    for code, value in pairs:
        Message(code, 1, dumps_internal(value)).to_io(stream)  # type: ignore[arg-type]
    return stream.getvalue()


PREAMBLE = BOOTSTRAP + messages(
    (Message.CHANNEL_EXEC, "source"), (Message.CHANNEL_DATA, ({"workerid": "guest"}, ["-x"]))
)
ANSWER = b"1" + messages(
    (Message.CHANNEL_DATA, ("workerready", {})), (Message.CHANNEL_DATA, ("collectionfinish", {"ids": ["a"]}))
)


@given(st.integers(0, len(PREAMBLE) + 40))
def test_a_preamble_ends_with_its_first_data_of_any_length(cut: int) -> None:
    stream = (PREAMBLE + messages((Message.CHANNEL_DATA, ("runtests", {}))))[:cut]
    assert preamble.end(stream) == (len(PREAMBLE) if cut >= len(PREAMBLE) else None)


@given(st.integers(0, len(ANSWER) - 1))
def test_a_worker_has_answered_when_the_whole_message_is_there(cut: int) -> None:
    assert preamble.answered(ANSWER)
    assert not preamble.answered(ANSWER[:cut])


def test_the_word_elsewhere_is_no_answer() -> None:
    assert not preamble.answered(b"1" + messages((Message.CHANNEL_EXEC, "collectionfinish")))


def test_a_shells_preamble_and_its_answer_have_the_fixed_form() -> None:
    """The first bytes that a shell sends have the form of a preamble, and the answer has its own form."""
    preamble_bytes = BOOTSTRAP + frames.PREAMBLE
    assert preamble.end(preamble_bytes + b"more") == len(preamble_bytes)
    assert preamble.answered(b"1" + frames.ANSWER)


@pytest.mark.parametrize("name", [b"gw0", b"gw17"])
def test_a_bootstrap_line_is_the_same_for_every_worker(name: bytes) -> None:
    assert preamble.without_name(BOOTSTRAP.replace(b"gw3", name)) == b"'serve(io, id=\\'guest-worker\\')'\n"
