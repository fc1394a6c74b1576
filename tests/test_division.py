"""Which kernel gets another guest, and what that one runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.shared.channel import division
from kernel_matrix.shared.channel.division import WORTH, Piece, WorkerId


@pytest.mark.parametrize(
    ("left", "chosen"),
    [
        ({}, None),
        ({("a", "x"): WORTH - 0.1}, None),
        ({("a", "x"): WORTH}, ("a", "x")),
        # the longest of a kernel, whatever comes first
        ({("a", "x"): 6.0, ("a", "y"): 9.0, ("a", "z"): 8.0}, ("a", "y")),
        # the kernel with the most left, though another has the longest piece
        ({("a", "x"): 20.0, ("b", "x"): 15.0, ("b", "y"): 14.0}, ("b", "x")),
        # many short ones are no reason
        ({("a", "x"): 7.0, **{("b", str(number)): 1.0 for number in range(90)}}, ("a", "x")),
        ({("b", "x"): 7.0, ("a", "x"): 7.0}, ("b", "x")),
    ],
)
def test_the_longest_file_of_the_busiest_kernel_gets_a_guest(
    left: dict[tuple[str, str], float], chosen: tuple[str, str] | None
) -> None:
    """The kernel with the most left gets another guest for its longest file."""
    assert division.longest({Piece(*piece): seconds for piece, seconds in left.items()}) == chosen


pieces = st.builds(Piece, st.sampled_from("ab"), st.text("xyz", min_size=1, max_size=3))


@given(st.dictionaries(pieces, st.floats(0, 100)))
def test_a_chosen_file_is_worth_it_and_the_longest_left(left: dict[Piece, float]) -> None:
    """No longer file of its kernel is left."""
    chosen = division.longest(left)
    if chosen is None:
        assert all(seconds < WORTH for seconds in left.values())
    else:
        assert left[chosen] == max(seconds for piece, seconds in left.items() if piece.kernel == chosen.kernel)
        assert left[chosen] >= WORTH


@given(st.dictionaries(pieces, st.floats(0, 100)))
def test_each_kernel_begins_with_one_of_its_pieces(takes: dict[Piece, float]) -> None:
    begins = division.first_pieces(takes)
    assert begins.keys() == {piece.kernel for piece in takes}
    assert {Piece(*first) for first in begins.items()} <= takes.keys()


def test_kernels_that_are_alike_begin_far_from_each_other() -> None:
    takes = {Piece(kernel, f"{piece:02}"): 1.0 for kernel in "abcd" for piece in range(20)}
    # parts of the golden ratio: 0, 0.618, 0.236, 0.854
    assert division.first_pieces(takes) == {"a": "00", "b": "12", "c": "04", "d": "17"}


def test_a_short_one_does_not_come_between_the_long_ones() -> None:
    seconds = {("a", "x"): 9.0, ("a", "y"): 9.0, ("a+v", "x"): 1.0, ("b", "x"): 8.0, ("b", "y"): 9.0}
    takes = {Piece(*piece): takes for piece, takes in seconds.items()}
    assert division.first_pieces(takes) == {"a": "x", "a+v": "x", "b": "y"}


def test_a_number_is_used_again_when_its_guest_is_over() -> None:
    taken = {WorkerId("a"), WorkerId("b"), WorkerId("b", 2), WorkerId("a", 3)}
    assert division.free("a", taken) == WorkerId("a", 2)
    assert division.free("b", taken) == WorkerId("b", 3)


def test_a_kernels_first_worker_has_the_kernels_name() -> None:
    """The files of no other kernel are taken for those of one of its workers."""
    assert str(WorkerId("6.1")) == "6.1"
    assert str(WorkerId("6.1+locked", 2)) == "6.1+locked~2"
