"""Undo steps in reverse order, thousands of times."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import ParamSpec, Protocol, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Undo(Protocol):
    """Where a step leaves the calls that undo it: an ExitStack, or `Calls`."""

    def callback(self, callback: Callable[_P, _T], /, *args: _P.args, **kwds: _P.kwargs) -> Callable[_P, _T]:
        """Call a function when the step is undone."""

    def enter_context(self, cm: AbstractContextManager[_T], /) -> _T:
        """Enter a context; exit it when the step is undone."""


class Calls:
    """The calls that undo what was done since the last `close`.

    For each callback an ExitStack makes a closure, and for each end it arranges the contexts of exceptions: seven times
    what a list takes, which for a small step under emulation is as long as its system call.
    """

    def __init__(self) -> None:
        self._calls: list[Callable[[], object]] = []

    def __bool__(self) -> bool:
        """Whether there is anything to undo."""
        return bool(self._calls)

    def callback(self, callback: Callable[_P, _T], /, *args: _P.args, **kwds: _P.kwargs) -> Callable[_P, _T]:
        """Call a function in `close`."""
        self._calls.append(partial(callback, *args, **kwds))
        return callback

    def enter_context(self, cm: AbstractContextManager[_T], /) -> _T:
        """Enter a context; exit it in `close`."""
        value = cm.__enter__()
        self._calls.append(partial(cm.__exit__, None, None, None))
        return value

    def close(self) -> None:
        """Make the calls, the last one first; one that raises keeps none of the others from being made."""
        while self._calls:
            call = self._calls.pop()
            try:
                call()
            except BaseException:
                self.close()
                raise
