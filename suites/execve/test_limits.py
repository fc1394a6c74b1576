"""The monitor at its limits, with one of its own for each test: what fills one would fill a shared one, too."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

from kernel_matrix.guest.bpf.loaders import Loader
from kernel_matrix.guest.bpf.steps import object_path
from kernel_matrix.guest.system import execs
from suites.execve.conftest import Losses, Monitor
from suites.execve.test_counts import PAGE, RECORD, failing
from suites.kernel_account import skipped


def test_of_ten_thousand_calls_none_is_unaccounted(resized: Callable[..., Monitor]) -> None:
    """Received and lost are all: nobody reads, and the ring buffer as it ships has room for 819."""
    monitor = resized()
    child = execs.in_child(failing(10_000), uid=1000)
    assert len(monitor.events(child.pid)) == 819
    assert monitor.losses() == Losses(events=10_000 - 819)
    assert monitor.calls(1000) == 10_000


def test_the_table_of_users_has_room_for_1024(resized: Callable[..., Monitor]) -> None:
    """As it ships; the calls of the last of 1025 users find no room."""
    first, count = 20_000, 1025
    monitor = resized()

    def one_after_another() -> None:
        for uid in range(first, first + count):
            os.setresuid(uid, 0, 0)
            failing(1)()

    child = execs.in_child(one_after_another)
    assert len(monitor.events(child.pid)) == 819
    assert [monitor.calls(uid) for uid in range(first, first + count)] == [1] * 1024 + [0]
    assert monitor.losses() == Losses(events=count - 819, uids=1)


def test_counts_have_64_bits(resized: Callable[..., Monitor]) -> None:
    """From just below 2^32 on."""
    monitor = resized(events=PAGE, uids=1)
    monitor.uids.put(1000, struct.pack("<Q", (1 << 32) - 1))
    monitor.losses_map.put(0, struct.pack("<2Q", (1 << 32) - 1, (1 << 32) - 2))
    monitor.begin()
    execs.in_child(failing(20), uid=1000)
    execs.in_child(failing(3), uid=1001)
    assert monitor.calls(1000) == 20
    assert monitor.losses() == Losses(events=20 + 3 - PAGE // RECORD, uids=3)
    assert monitor.uids.get(1000) == struct.pack("<Q", (1 << 32) + 19)


def test_what_the_kernel_skips_is_in_no_count(loader: Loader) -> None:
    """A blind spot: generated is received, lost, and skipped, and skipped is known to the kernel alone.

    The program is attached to a function that another program calls, by a kprobe inside of that one's kprobe: it is not
    hit. So it is with every program there, and kernels that account for it say so of each. (A monitor of other tests
    would do the same when bpftool is executed, and be counted.)
    """
    inner, writer = "htab_map_update_elem", "loaders_writer"
    with (
        loader.opened(object_path("kprobe_execve")) as obj,
        loader.opened(object_path("fixtures/loaders")) as other,
        obj.attach_kprobe("trace_execve", inner),
        other.attach_kprobe("loaders_kprobe", inner),
    ):
        ring = obj.ring_buffer("events")
        with other.attach_kprobe(writer, "__x64_sys_getpgid"):
            os.getpgid(0)
        assert other.map("names").get(7) == bytes([1, 0, 0, 0]), "the other program ran"
        assert ring.consume() == []
        assert list(obj.map("uids").keys()) == []
        assert obj.map("losses").get(0) == bytes(16)
        assert skipped(["trace_execve", "loaders_kprobe"]) in ({}, {"trace_execve": 1, "loaders_kprobe": 1})
