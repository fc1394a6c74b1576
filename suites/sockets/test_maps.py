"""The monitor's maps as they ship, and how a reader hears of an event."""

from __future__ import annotations

import socket

from kernel_matrix.guest.bpf.loaders import Loader
from kernel_matrix.guest.bpf.steps import object_path
from kernel_matrix.guest.pytest.marks import with_loaders
from suites.kernel_account import Table, clocks_read, maps_of, plain_additions
from suites.reader import woken
from suites.sockets.conftest import Monitor

#: the objects' own numbers, whatever loads them
pytestmark = with_loaders("libbpf")


def test_the_tables_have_the_sizes_they_ship_with(monitor: Monitor) -> None:
    """256 KiB of events, 16384 calls under way; totals, and room for eight lengths, for each processor.

    The two programs that read lengths have that room for themselves: since 7.2 one may be preempted by the other.
    """
    assert monitor.events() == []
    for program, room in (("trace_sendmmsg_exit", "send_lengths"), ("trace_recvmmsg_exit", "recv_lengths")):
        tables = maps_of(program)
        assert {name: (table.type, table.max_entries) for name, table in tables.items()} == {
            "calls": ("hash", 16384),
            "events": ("ringbuf", 256 << 10),
            "totals": ("percpu_array", 1),
            room: ("percpu_array", 1),
        }
        # seven messages of 64 bytes and the length of the eighth
        assert tables[room] == Table("percpu_array", 1, 4, 7 * 64 + 4)


def test_totals_are_added_to_atomically(monitor: Monitor, loader: Loader) -> None:
    """Since 7.2 another program may run on a processor between a load and a store of one that it preempts."""
    assert monitor.events() == []
    # the beginning and the end that count most
    assert [plain_additions(f"trace_recvmmsg_{end}") for end in ("enter", "exit")] == [[], []]
    # a record that no two programs share needs none of this, so this shows that a plain addition is recognised
    with loader.opened(object_path("xdp_packet_counter")):
        assert plain_additions("xdp_packet_counter") != []


def test_a_reader_that_waits_is_woken(monitor: Monitor) -> None:
    """Readers sleep in epoll_wait() until an event comes (ringbuf_map_poll_kern()); these suites look by themselves."""
    left, right = socket.socketpair()
    with left, right:
        monitor.events()
        assert woken(monitor.object, "events", lambda: left.send(b"x"))


def test_the_clock_stands_still_in_a_suspend(loader: Loader) -> None:
    """CLOCK_MONOTONIC, and no other clock."""
    assert loader.name == "libbpf"
    assert clocks_read(object_path("tracepoint_network")) == {"monotonic"}
