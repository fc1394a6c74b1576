"""Undoing steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from kernel_matrix.guest.bpf.undo import Calls, Undo


@contextmanager
def _context(log: list[str]) -> Iterator[str]:
    log.append("enter")
    yield "value"
    log.append("exit")


@pytest.mark.parametrize("kind", [Calls, ExitStack])
def test_what_was_done_last_is_undone_first(kind: type[Calls | ExitStack]) -> None:
    """As an ExitStack does, whose place it takes."""
    log: list[str] = []
    kept = kind()
    undo: Undo = kept
    for _ in range(2):
        undo.callback(log.append, "first")
        assert undo.enter_context(_context(log)) == "value"
        undo.callback(log.append, "last")
        kept.close()
        assert log == ["enter", "last", "exit", "first"]
        log.clear()


def test_one_that_fails_keeps_none_from_being_undone() -> None:
    log: list[str] = []
    undo = Calls()
    assert not undo
    undo.callback(log.append, "first")
    undo.callback([].pop)
    undo.callback(log.append, "last")
    assert undo
    with pytest.raises(IndexError):
        undo.close()
    assert log == ["last", "first"]
    assert not undo
