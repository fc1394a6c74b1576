"""Calls per user, and what happens when there is no room: generated = received + lost, always."""

from __future__ import annotations

from collections.abc import Callable

from kernel_matrix.guest.system import execs
from suites.execve.conftest import Losses, Monitor
from suites.execve.test_events import TRUE, run

#: sizeof(struct exec_event) and the header of a ring buffer's record (BPF_RINGBUF_HDR_SZ)
RECORD = 312 + 8
PAGE = 4096


def failing(times: int) -> Callable[[], None]:
    """Return what calls execve that many times without ever getting through."""

    def calls() -> None:
        for _ in range(times):
            try:
                run("/no/such/program")
            except FileNotFoundError:
                continue

    return calls


def test_each_users_calls_are_counted_apart(monitor: Monitor) -> None:
    """By the real uid, root's too, of all its 32 bits; calls that fail count too."""
    made = {0: 2, 1000: 3, 1001: 1, 65534: 5, 65536 + 1001: 6, (1 << 32) - 2: 7}
    for uid, times in made.items():
        execs.in_child(failing(times), uid=uid)
    execs.in_child(lambda: run(TRUE), uid=1000)
    assert {uid: monitor.calls(uid) for uid in (*made, 1002)} == {**made, 1000: 4, 1002: 0}


def test_a_burst_that_fits_loses_nothing(monitor: Monitor) -> None:
    """The ring buffer has room for 256 KiB / 320 bytes = 819 records; nobody reads in between."""
    child = execs.in_child(failing(800), uid=1000)
    assert len(monitor.events(child.pid)) == 800
    assert monitor.calls(1000) == 800
    assert monitor.losses() == Losses()


def test_a_burst_of_processes_loses_nothing(monitor: Monitor) -> None:
    """One event for each of 100 children."""
    children = [execs.in_child(lambda: run(TRUE)) for _ in range(100)]
    events = monitor.events(*[child.pid for child in children])
    assert [event.tgid for event in events] == [child.pid for child in children]


def test_what_finds_the_ring_buffer_full_is_counted(resized: Callable[..., Monitor]) -> None:
    """A page holds 12 records: 12 * 320 = 3840, and a thirteenth would pass the page's end (bpf_ringbuf_reserve)."""
    fitting = PAGE // RECORD
    assert fitting == 12
    monitor = resized(events=PAGE)
    child = execs.in_child(failing(100), uid=1000)
    assert len(monitor.events(child.pid)) == fitting
    assert monitor.losses() == Losses(events=100 - fitting)
    # the table of users is apart from the events
    assert monitor.calls(1000) == 100


def test_a_full_ring_buffer_takes_events_again_once_it_is_read(resized: Callable[..., Monitor]) -> None:
    """Losing is no end."""
    monitor = resized(events=PAGE)
    first = execs.in_child(failing(20))
    assert len(monitor.events(first.pid)) == PAGE // RECORD
    second = execs.in_child(failing(5))
    assert len(monitor.events(second.pid)) == 5
    assert monitor.losses() == Losses(events=20 - PAGE // RECORD)


def test_users_that_find_the_table_full_are_counted_as_lost(resized: Callable[..., Monitor]) -> None:
    """Their events still come."""
    monitor = resized(uids=2)
    children = [execs.in_child(failing(times), uid=uid) for uid, times in ((1000, 1), (1001, 2), (1002, 4))]
    assert [monitor.calls(uid) for uid in (1000, 1001, 1002)] == [1, 2, 0]
    assert monitor.losses() == Losses(uids=4)
    assert len(monitor.events(*[child.pid for child in children])) == 7
