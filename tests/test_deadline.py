"""Waiting for a condition."""

from __future__ import annotations

import itertools

import pytest

from kernel_matrix.guest.system.deadline import limit, wait_until


def test_the_first_true_value_is_returned() -> None:
    values = iter([0, None, "", 3])
    assert wait_until(lambda: next(values), "three") == 3
    assert list(values) == []


def test_a_limit_scales_with_a_slower_guest_and_never_shrinks(monkeypatch: pytest.MonkeyPatch) -> None:
    for speed, expected in (("1", 2.0), ("10", 20.0), ("0.1", 2.0)):
        monkeypatch.setenv("HARNESS_SPEED", speed)
        assert limit(2) == expected
    monkeypatch.delenv("HARNESS_SPEED")
    assert limit(2) == 2


def test_too_late_is_an_error_that_says_what_was_seen_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_SPEED", raising=False)
    seen = itertools.cycle([0])
    with pytest.raises(TimeoutError, match=r"^the moon: not within 0 s; last seen: 0$"):
        wait_until(lambda: next(seen), "the moon", seconds=0)
