"""The exec monitor, loaded and attached for one test."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from kernel_matrix.guest.bpf.loaders import Loader, Object
from kernel_matrix.guest.bpf.steps import object_path

PROGRAMS = ("trace_execve", "trace_execveat", "trace_compat_execve", "trace_compat_execveat")


class Entry(enum.StrEnum):
    """``enum exec_entry``, whose values are the object's own."""

    EXECVE = "EXEC_ENTRY_EXECVE"
    EXECVEAT = "EXEC_ENTRY_EXECVEAT"
    COMPAT_EXECVE = "EXEC_ENTRY_COMPAT_EXECVE"
    COMPAT_EXECVEAT = "EXEC_ENTRY_COMPAT_EXECVEAT"


@dataclass(frozen=True, slots=True)
class ExecEvent:
    """``struct exec_event``."""

    timestamp: int
    pid: int
    tgid: int
    uid: int
    gid: int
    ppid: int
    entry: str
    directory: int
    filename_length: int
    comm: str
    filename: str


@dataclass(frozen=True, slots=True)
class Losses:
    """``struct exec_losses``."""

    events: int = 0
    uids: int = 0


class Monitor:
    """The attached monitor and its maps; events, calls and losses are those since the last `begin`."""

    def __init__(self, obj: Object) -> None:
        self._calls_before: dict[int, int] = {}
        self._losses_before = Losses()
        self.links = obj.attach()
        self._ring = obj.ring_buffer("events")
        self._layout = obj.layout("exec_event", ExecEvent)
        self._losses = obj.layout("exec_losses", Losses)
        self.losses_map = obj.map("losses")
        self.uids = obj.map("uids")

    def begin(self) -> None:
        """Forget what was seen until now."""
        self._ring.consume()
        self._calls_before = {uid: self._calls_since_loaded(uid) for uid in list(self.uids.keys())}
        self._losses_before = self._losses_since_loaded()

    def events(self, *tgids: int) -> list[ExecEvent]:
        """Return the new events of these processes, all new ones when none is named.

        An event is in the buffer before the call it reports goes on, so whoever has waited for the process has it.
        """
        events = [self._layout.decode(record) for record in self._ring.consume()]
        return [event for event in events if not tgids or event.tgid in tgids]

    def calls(self, uid: int) -> int:
        """Return how many calls that user has made."""
        return self._calls_since_loaded(uid) - self._calls_before.get(uid, 0)

    def losses(self) -> Losses:
        """Return what was not sent and not counted."""
        now, before = self._losses_since_loaded(), self._losses_before
        return Losses(now.events - before.events, now.uids - before.uids)

    def _calls_since_loaded(self, uid: int) -> int:
        value = self.uids.get(uid)
        return 0 if value is None else int.from_bytes(value, "little")

    def _losses_since_loaded(self) -> Losses:
        value = self.losses_map.get(0)
        assert value is not None
        return self._losses.decode(value)


@contextmanager
def monitoring(loader: Loader, **max_entries: int) -> Iterator[Monitor]:
    """Load and attach a monitor of its own."""
    with loader.opened(object_path("kprobe_execve"), max_entries=max_entries) as obj:
        yield Monitor(obj)


@pytest.fixture(scope="module")
def loaded(loader: Loader) -> Iterator[Monitor]:
    """Return the monitor as it ships, which all tests of a file share."""
    with monitoring(loader) as made:
        yield made


@pytest.fixture
def monitor(loaded: Monitor) -> Iterator[Monitor]:
    """Return the monitor as it ships with nothing seen yet; at the end nothing may have been lost."""
    loaded.begin()
    yield loaded
    assert loaded.losses() == Losses(), "the test itself says when something may be lost"


@pytest.fixture
def resized(loader: Loader) -> Iterator[Callable[..., Monitor]]:
    """Return what loads a monitor with maps of other sizes."""
    with ExitStack() as stack:
        yield lambda **max_entries: stack.enter_context(monitoring(loader, **max_entries))
