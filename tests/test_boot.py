"""Cold, saved and restored, with a process of the host in the guest's place."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from kernel_matrix.relay import boot, machine
from kernel_matrix.relay.boot import Boots, Preamble, Running
from kernel_matrix.relay.job import Job
from kernel_matrix.relay.machine import BootError, Machine
from kernel_matrix.relay.saved import memory_files, qemu_command, snapshots
from kernel_matrix.shared import conclusions
from kernel_matrix.vm import boot_spec
from tests.fake_guest import job_below


class Starter:
    """Starts guests of one job."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job = job
        self.folder = folder
        self.started: list[Boots] = []
        self.guests: list[Running] = []

    def __call__(self, preamble: Preamble | None = None) -> Running:
        place = self.folder / f"s{len(self.started)}"
        place.mkdir()
        self.started.append(Boots(self.job, place, lambda _: os.sched_yield()))
        guest = self.started[-1].start(preamble)
        self.guests.append(guest)
        return guest

    @property
    def cold_boots(self) -> int:
        return self.job.console.read_text().count("Linux version")


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Starter]:
    monkeypatch.setenv("HARNESS_FAKE", "well")
    (tmp_path / "console").mkdir()
    starter = Starter(replace(job_below(tmp_path), snapshot=(tmp_path / "snapshots", "key")), tmp_path)
    yield starter
    for guest in starter.guests:
        guest.channel.close()
    for boots in starter.started:
        boots.stop()


def test_the_first_use_boots_and_saves_and_every_use_restores(start: Starter) -> None:
    assert [(guest.how, guest.note, guest.hello.release) for guest in (start(), start())] == [
        ("restored", "", "6.0.0-fake"),
        ("restored", "", "6.0.0-fake"),
    ]
    # the fake prints it at every start: one boot, two restores
    assert start.cold_boots == 3
    assert (start.folder / "snapshots" / "key" / "state").read_bytes() == b"state"


def test_virtme_ng_makes_the_command_of_one_restored_guest(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next guests, of the same snapshot and of its workers, are started by QEMU's own command, in other folders."""
    start.job = replace(start.job, worker="always")
    start()
    start(preamble(CONVERSATION))
    monkeypatch.setattr(boot_spec, "vng_command", lambda *_, **__: pytest.fail("it was made again"))
    guests = [start(), start(preamble(CONVERSATION))]
    assert [(guest.how, guest.note, guest.answer) for guest in guests] == [
        ("restored", "", None),
        ("restored", "", ANSWER),
    ]
    assert len({guest.folder for guest in guests}) == 2


@pytest.mark.parametrize("damage", [b"[", b'{"no": "list"}'])
def test_a_damaged_command_is_made_again(start: Starter, damage: bytes) -> None:
    start()
    path = start.folder / "snapshots" / "key" / qemu_command.NAME
    good = path.read_bytes()
    path.write_bytes(damage)
    guest = start()
    assert (guest.how, guest.note, path.read_bytes()) == ("restored", "", good)


ANSWER = b"1" + struct.pack("!bii", 4, 1, 16) + b"collectionfinish"
#: the agent's headers, no project
SHARED = b'{"bytes": 0, "environment": {}, "rehearse": null}\n'
PREPARE = SHARED.replace(b"null", b"{}")
#: and execnet's bootstrap line behind the second
BOOTSTRAP = repr(f"import os, signal; os.write(1, {ANSWER!r}); signal.pause()").encode() + b"\n"
CONVERSATION = b'{"bytes": 0, "environment": {}, "bootstrap": %d}\n%s' % (len(BOOTSTRAP), BOOTSTRAP)


def preamble(rest: bytes, prepare: bytes | None = None, shared: bytes = SHARED) -> Preamble:
    return Preamble(prepare=prepare, shared=shared, rest=rest)


def test_a_worker_is_saved_and_restored_behind_its_answer(start: Starter) -> None:
    start.job = replace(start.job, worker="always")
    first = start(preamble(CONVERSATION))
    assert (first.answer, memory(first)) == (ANSWER, "guest worker")
    # a boot that is saved, one that is saved with its worker, and that one restored
    assert start.cold_boots == 3
    again = start(preamble(CONVERSATION))
    assert (again.answer, memory(again)) == (ANSWER, "guest worker")
    assert start.cold_boots == 4
    without = start()
    assert (without.answer, memory(without)) == (None, "guest ")


def memory(guest: Running) -> str:
    """Return the marks of who has run in a guest's memory before it was saved, as it found them when it woke."""
    return (guest.folder / "memory").read_text()


def test_a_guest_gets_the_limits_of_its_own_wake(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest and its worker are saved on a busy machine, restored on an idle one: the same worker, other limits."""
    start.job = replace(start.job, worker="always")
    monkeypatch.setenv("HARNESS_FAKE_SECONDS", "0.0021")
    saved = start(preamble(CONVERSATION))
    monkeypatch.setenv("HARNESS_FAKE_SECONDS", "0.0003")
    boots = start.cold_boots
    restored = start(preamble(CONVERSATION))
    assert (restored.answer, start.cold_boots) == (ANSWER, boots + 1)
    assert [(guest.probe, limits(guest)["HARNESS_SPEED"]) for guest in (saved, restored)] == [
        (0.0021, "7.00"),
        (0.0003, "1.00"),
    ]


def limits(guest: Running) -> dict[str, str]:
    """Return the limits that a guest got when it woke."""
    values: dict[str, str] = json.loads((guest.folder / "limits").read_text())
    return values


def test_a_worker_with_unwritable_memory_is_reported_unused(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose memory file may not be written is not used, and the run says so."""

    def refused(_: Path, process: int, __: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", f"/proc/{process}/mem")

    monkeypatch.setattr(memory_files, "write_changes", refused)
    start.job = replace(start.job, worker="always")
    guest = start(preamble(CONVERSATION))
    assert (guest.how, guest.answer) == ("restored", None)
    assert re.fullmatch(r"no saved worker: /proc/\d+/mem: Permission denied", guest.note)
    assert len(list((start.folder / "snapshots").glob("key+*/"))) == 1


def test_a_worker_that_an_earlier_run_had_too_is_saved(start: Starter) -> None:
    start.job = replace(start.job, worker="again")
    assert [start(preamble(CONVERSATION)).answer for _ in range(2)] == [None, None]
    # another guest of the same run
    start.job = replace(start.job, console=start.job.console.with_name("beside.log"))
    assert start(preamble(CONVERSATION)).answer is None
    later = start.folder / "later"
    later.mkdir()
    start.job = replace(start.job, console=later / "console.log")
    assert start(preamble(CONVERSATION)).answer == ANSWER


def test_a_guest_keeps_the_last_worker_only(start: Starter) -> None:
    start.job = replace(start.job, worker="always")
    start(preamble(CONVERSATION))
    start(preamble(CONVERSATION.replace(b"{}", b"{ }")))
    assert len(list((start.folder / "snapshots").glob("key+*/"))) == 1
    assert len(list((start.folder / "snapshots").glob("key/"))) == 1


def test_a_worker_that_never_answers_is_not_saved(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest is used without it."""
    monkeypatch.setattr(boot, "_COLLECT_TIMEOUT", 1.0)
    start.job = replace(start.job, worker="always")
    guest = start(preamble(CONVERSATION.replace(b"collection", b"somethings")))
    assert (guest.how, guest.answer) == ("restored", None)
    assert guest.note == "no saved worker: not collected after 1 s"
    assert list((start.folder / "snapshots").glob("key+*/")) == []


def test_a_failed_copy_of_memory_has_the_message_of_cp(
    start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "cp").write_text("#!/bin/sh\necho 'cp: error reading: Input/output error' >&2\nexit 1\n")
    (tmp_path / "bin" / "cp").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    start.job = replace(start.job, worker="always")
    guest = start(preamble(CONVERSATION))
    assert (guest.how, guest.answer) == ("restored", None)
    assert re.fullmatch(r"no saved worker: \S+: cp: error reading: Input/output error", guest.note)


def test_a_damaged_worker_is_made_again(start: Starter) -> None:
    start.job = replace(start.job, worker="always")
    start(preamble(CONVERSATION))
    (place,) = (start.folder / "snapshots").glob("key+*/")
    (place / "answer").write_bytes(b"1")
    assert start(preamble(CONVERSATION)).answer == ANSWER


def next_run(start: Starter) -> None:
    """Let what follows be of another run."""
    folder = start.folder / f"run{len(start.started)}"
    folder.mkdir()
    start.job = replace(start.job, console=folder / "console.log")


def prepared_for(start: Starter, *texts: bytes) -> list[tuple[bool, bytes | None]]:
    """Start a guest a run, each with another test; return which were prepared, and their answers."""
    answers = []
    for text in texts:
        next_run(start)
        guest = start(preamble(CONVERSATION.replace(b"{}", b'{"TEST": "%s"}' % text), PREPARE))
        answers.append((guest.prepared, guest.answer))
    return answers


def test_a_guest_is_prepared_when_two_runs_share_all_but_a_test(start: Starter) -> None:
    start.job = replace(start.job, worker="again")
    assert prepared_for(start, b"a", b"b", b"c") == [(False, None), (True, None), (True, None)]
    # the same test again: its worker is made from the prepared guest, and restored from then on
    assert prepared_for(start, b"c", b"c") == [(False, ANSWER), (False, ANSWER)]


def test_a_change_of_shared_code_prepares_no_guest(start: Starter) -> None:
    """The code that all tests share has changed."""
    start.job = replace(start.job, worker="again")
    prepared_for(start, b"a", b"b")
    next_run(start)
    changed = start(preamble(CONVERSATION, PREPARE.replace(b"{}", b"{ }")))
    assert (changed.prepared, changed.answer, changed.note) == (False, None, "")


def test_an_endless_rehearsal_leaves_the_guest_as_it_was(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "_COLLECT_TIMEOUT", 1.0)
    start.job = replace(start.job, worker="again")
    outcomes = []
    for _ in range(2):
        next_run(start)
        # the fake does not answer to this
        guest = start(preamble(CONVERSATION, SHARED.replace(b"null", b'"deaf"')))
        outcomes.append((guest.prepared, guest.note))
    assert outcomes == [(False, ""), (False, "no guest is prepared for the project: not prepared after 1 s")]


def test_without_a_key_it_boots_cold(start: Starter) -> None:
    start.job = replace(start.job, snapshot=None)
    assert start().how == "cold"
    assert not (start.folder / "snapshots").exists()


def test_a_qemu_that_cannot_save_boots_cold_and_says_so(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not asked again."""
    monkeypatch.setenv("HARNESS_FAKE", "unsavable")
    note = "no snapshot: migrate-set-capabilities: no such capability"
    assert [(guest.how, guest.note) for guest in (start(), start())] == [("cold", note), ("cold", note)]
    # one try to save, two cold boots
    assert start.cold_boots == 3
    # QEMU itself has said so: neither time nor the option changes that
    folder = start.folder / "snapshots"
    os.utime(folder / "key.unusable", (1000, 1000))
    snapshots.ask_again(folder, "key")
    assert start().note == note
    assert start.cold_boots == 4


@pytest.mark.parametrize("mode", ["stuck", "gone", "failing"])
def test_a_save_that_failed_in_passing_is_tried_again_later(
    start: Starter, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """A monitor that does not answer in time, a QEMU that dies, a disk that takes no state: all may be the load."""
    monkeypatch.setenv("HARNESS_FAKE", mode)
    with monkeypatch.context() as patch:
        patch.setattr(machine, "_MONITOR_TIMEOUT", 0.5)
        assert start().how == "cold"
    monkeypatch.setenv("HARNESS_FAKE", "well")
    assert start().how == "cold"
    forgotten = start.folder / "snapshots" / "key.unusable"
    before = time.time() - conclusions.AGAIN_AFTER - 1
    os.utime(forgotten, (before, before))
    assert (start().how, start().note) == ("restored", "")


def test_a_silent_snapshot_is_made_again_only_once(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that does not answer is made again once and then given up."""
    start()
    monkeypatch.setenv("HARNESS_FAKE", "deaf")
    with monkeypatch.context() as patch:
        patch.setattr(boot, "_RESTORE_TIMEOUT", 1.0)
        guest = start()
    assert guest.how == "cold"
    assert guest.note == "no snapshot: the snapshot was made again: not ready after 1 s"
    assert not (start.folder / "snapshots" / "key").exists()
    assert start().how == "cold"
    monkeypatch.setenv("HARNESS_FAKE", "well")
    assert start().how == "cold"
    snapshots.ask_again(start.folder / "snapshots", "key")
    assert start().how == "restored"


def test_a_full_disk_is_a_cold_boot_and_not_remembered(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk without room for the guest's memory."""
    usage = shutil.disk_usage(start.folder)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=start.job.boot.memory_mib << 20))
        guest = start()
        assert (guest.how, guest.note) == ("cold", f"no snapshot: {start.folder}/snapshots: No space left on device")
    assert start().how == "restored"


def test_a_damaged_snapshot_is_made_again(start: Starter) -> None:
    start()
    (start.folder / "snapshots" / "key" / "state").write_bytes(b"stat")
    assert (start().how, (start.folder / "snapshots" / "key" / "state").read_bytes()) == ("restored", b"state")


def test_a_failed_boot_does_not_give_up_saving(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_FAKE", "dies")
    with pytest.raises(BootError, match=r"^QEMU ended before the guest was ready$"):
        start()
    assert [path.name for path in (start.folder / "snapshots").iterdir() if not path.name.endswith(".lock")] == []
    monkeypatch.setenv("HARNESS_FAKE", "well")
    assert start().how == "restored"


def test_a_saved_guest_that_two_want_at_once_is_made_once(start: Starter) -> None:
    """The second waits for the first one's lock, looking after its controller meanwhile."""
    folder = start.folder / "snapshots"
    folder.mkdir()
    waiting: list[float] = []

    class Gone(Exception):
        pass

    def tick(seconds: float) -> None:
        waiting.append(seconds)
        raise Gone

    held = FileLock(folder / "key.lock")
    with held, pytest.raises(Gone):
        Boots(start.job, start.folder, tick).start()
    assert waiting
    assert snapshots.find(folder, "key") is None


def test_a_boot_waits_only_for_a_socket_that_does_not_exist(tmp_path: Path) -> None:
    """A file in a folder's place is no matter of time."""

    class Waits(Exception):
        pass

    class Waiting:
        def _check(self, what: str) -> None:
            raise Waits(what)

    (tmp_path / "file").touch()
    for path, raised in ((tmp_path / "socket", Waits), (tmp_path / "file" / "socket", NotADirectoryError)):
        with socket.socket(socket.AF_UNIX) as port, pytest.raises(raised):
            Machine._connect(Waiting(), port, path)  # type: ignore[arg-type]
