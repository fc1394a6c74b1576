"""What a run remembers of its guests."""

from __future__ import annotations

import os
import time
from pathlib import Path

from kernel_matrix.shared import wire
from kernel_matrix.shared.channel.division import WorkerId
from kernel_matrix.vm.ending import STARTED, Started
from kernel_matrix.vm.guests import GuestRecord, Guests, summary


def start(folder: Path, kernel: str, number: int, *, how: str = "restored", note: str = "") -> None:
    started = Started(kernel.partition("~")[0], how, time.monotonic() - 2.0, 0.5, os.getpgrp(), note)
    wire.write(folder / f"{kernel}.{number}{STARTED}", started)


def test_each_guest_has_a_first_test_of_its_own(tmp_path: Path) -> None:
    """The time of a guest's first test counts; the next guest of the kernel has a first test of its own."""
    guests = Guests(tmp_path)
    guests.test_starts(WorkerId("6.1"))  # a kernel without a guest: nothing to note
    start(tmp_path, "6.1", 1)
    guests.test_starts(WorkerId("6.1"))
    guests.test_starts(WorkerId("6.1"))
    guests.ends(WorkerId("6.1"), alive=False)
    start(tmp_path, "6.1", 2, note="the snapshot was made again")
    guests.test_starts(WorkerId("6.1"))
    guests.ends(WorkerId("6.1"), alive=True)
    dead, alive = guests.records()
    assert (dead.tests, dead.tests_cpu, dead.note, dead.gap) == (None, None, "", None)
    assert alive.gap is not None
    assert 0 <= alive.gap < 60
    assert dead.first_test is not None
    assert 2.0 <= dead.first_test < 60
    assert dead.first_test_cpu is not None
    assert alive.note == "the snapshot was made again"
    assert alive.tests is not None
    assert alive.tests_cpu is not None


def test_a_guest_beside_another_of_its_kernel_has_its_own_times(tmp_path: Path) -> None:
    guests = Guests(tmp_path)
    beside = WorkerId("6.1", 2)
    start(tmp_path, "6.1", 1, how="cold")
    guests.test_starts(beside)  # it has not come up
    start(tmp_path, str(beside), 2)
    for worker in (WorkerId("6.1"), beside):
        guests.test_starts(worker)
    guests.ends(beside, alive=True)
    guests.ends(WorkerId("6.1"), alive=False)
    assert [(record.how, record.tests is None) for record in guests.records()] == [("cold", True), ("restored", False)]
    assert {record.kernel for record in guests.records()} == {"6.1"}


def test_a_guest_without_a_test_is_known_by_how_it_came_up(tmp_path: Path) -> None:
    start(tmp_path, "6.1", 1, how="cold")
    guests = Guests(tmp_path)
    guests.ends(WorkerId("6.1"), alive=True)
    assert guests.records() == (GuestRecord("6.1", "cold", "", 0.5),)


def test_one_line_says_how_they_came_up() -> None:
    records = [
        GuestRecord("6.1", "restored", "", 0.5, first_test=1.0),
        GuestRecord("6.1", "restored", "", 0.4, first_test=2.0),
        GuestRecord("6.1", "restored", "", 0.9, first_test=1.5),
        GuestRecord("7.3", "cold", "", 20.0),
    ]
    assert summary(records) == (
        "guests: 1 cold in 20.0 s; 3 restored in 0.5 s (0.4 to 0.9), first test after 1.5 s (1.0 to 2.0)"
    )
