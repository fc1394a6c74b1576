"""The monitor's maps as they ship, how they are added to, and how a reader hears of an event."""

from __future__ import annotations

import pytest

from kernel_matrix.guest.bpf.loaders import Loader
from kernel_matrix.guest.bpf.steps import object_path
from kernel_matrix.guest.pytest.marks import with_loaders
from kernel_matrix.guest.system import execs
from suites.execve.conftest import PROGRAMS, Monitor
from suites.execve.test_events import TRUE, run
from suites.kernel_account import Table, clocks_read, flags_of_updates, maps_of, plain_additions
from suites.reader import woken

#: the objects' own numbers, whatever loads them
pytestmark = with_loaders("libbpf")


def test_the_tables_have_the_sizes_they_ship_with(monitor: Monitor) -> None:
    """256 KiB of events, 1024 users, one record of losses."""
    assert monitor.calls(0) == 0
    assert maps_of("trace_execve") == {
        "events": Table("ringbuf", 256 << 10, 0, 0),
        "uids": Table("hash", 1024, 4, 8),
        "losses": Table("array", 1, 4, 16),
    }


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_processors_share_is_added_to_atomically(program: str, monitor: Monitor) -> None:
    """A user's calls, and both losses: a load, an addition and a store would lose what another has stored meanwhile."""
    assert monitor.calls(0) == 0
    assert plain_additions(program) == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_user_s_first_call_does_not_reset_another_s(program: str, monitor: Monitor) -> None:
    """A new entry is made only where there is none (BPF_NOEXIST): another processor may have made and counted one."""
    assert monitor.calls(0) == 0
    assert flags_of_updates(program) == [1]


def test_a_reader_that_waits_is_woken(loader: Loader) -> None:
    """Readers sleep in epoll_wait() until an event comes (ringbuf_map_poll_kern()); these suites look by themselves."""
    with loader.opened(object_path("kprobe_execve")) as obj, obj.attach():
        assert woken(obj, "events", lambda: execs.in_child(lambda: run(TRUE)))


def test_the_clock_stands_still_in_a_suspend(loader: Loader) -> None:
    """CLOCK_MONOTONIC, and no other clock."""
    assert loader.name == "libbpf"
    assert clocks_read(object_path("kprobe_execve")) == {"monotonic"}
