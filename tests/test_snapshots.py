"""Saved guests as folders: whole and what was saved, or not there."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from kernel_matrix.images import KernelImage, RootImage
from kernel_matrix.plan import preparation, provisioning
from kernel_matrix.plan.guest_list import ListedGuest, RunRequest
from kernel_matrix.relay.job import Job
from kernel_matrix.relay.saved import snapshots
from kernel_matrix.relay.saved.snapshots import Hello
from kernel_matrix.report.run_folder import RunDirectory
from kernel_matrix.shared import conclusions, marker
from kernel_matrix.vm.boot_spec import Accelerator, BootSpec
from tests.fake_guest import BOOT
from tests.projects import below

REQUEST = RunRequest((), (), guests=None, locked=False, silence=None)


def make(folder: Path, name: str = "key", ram: bytes = b"memory", state: bytes = b"devices") -> Path:
    with snapshots.making(folder, name) as place:
        with (place / "ram").open("wb") as file:
            file.write(ram)
            file.truncate(1 << 20)
        (place / "state").write_bytes(state)
        snapshots.keep(place, name, kernel="6.1", hello=Hello("6.1.0"))
    return folder / name


def make_worker(folder: Path, name: str, ram: bytes = b"mEmory", answer: bytes = b"answer") -> Path:
    """Make a worker of the guest whose name it begins with."""
    base = snapshots.find(folder, name.partition("+")[0])
    assert base is not None
    with snapshots.making(folder, name) as place:
        (place / "ram").write_bytes(ram.ljust(1 << 20, b"\0"))
        (place / "state").write_bytes(b"devices")
        snapshots.keep_worker(place, name, base, answer)
    return folder / name


def forget_verification(place: Path) -> None:
    (place / "verified").unlink()


def test_what_was_kept_is_found(tmp_path: Path) -> None:
    place = make(tmp_path)
    snapshot = snapshots.find(tmp_path, "key")
    assert snapshot is not None
    assert (snapshot.ram, snapshot.meta.hello) == (place / "ram", Hello("6.1.0"))
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    assert snapshots.find(tmp_path, "other") is None


def test_a_folder_that_is_not_kept_is_gone(tmp_path: Path) -> None:
    with snapshots.making(tmp_path, "key") as place:
        (place / "ram").touch()
    assert list(tmp_path.iterdir()) == []
    assert snapshots.find(tmp_path, "key") is None


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(3)
        file.write(b"X")


@pytest.mark.parametrize(
    "damage",
    [
        lambda place: overwrite(place / "ram"),
        lambda place: overwrite(place / "state"),
        lambda place: os.truncate(place / "ram", 4096),
        lambda place: os.truncate(place / "state", 0),
        lambda place: (place / "ram").unlink(),
        lambda place: (place / "state").unlink(),
        lambda place: (place / "snapshot.json").write_text("{}"),
        lambda place: (place / "snapshot.json").write_text("garbage"),
    ],
    ids=["ram", "state", "short ram", "short state", "no ram", "no state", "other json", "no json"],
)
def test_what_is_not_what_was_saved_is_taken_away(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    place = make(tmp_path)
    damage(place)
    assert snapshots.find(tmp_path, "key") is None
    assert not place.exists()


def test_a_worker_has_its_guests_memory_and_its_own_pages(tmp_path: Path) -> None:
    guest = make(tmp_path)
    place = make_worker(tmp_path, "key+a")
    snapshot = snapshots.find(tmp_path, "key+a")
    assert snapshot is not None
    assert (snapshot.ram, snapshot.changes, snapshot.answer) == (guest / "ram", place, b"answer")
    assert sum(path.stat().st_blocks for path in place.iterdir()) * 512 < 1 << 16
    base = snapshots.find(tmp_path, "key")
    assert base is not None
    assert (base.changes, base.answer) == (None, None)


@pytest.mark.parametrize(
    "damage",
    [
        lambda worker: overwrite(worker / "pages"),
        lambda worker: overwrite(worker / "places"),
        lambda worker: overwrite(worker / "state"),
        lambda worker: os.truncate(worker / "pages", 0),
        lambda worker: (worker / "pages").unlink(),
        lambda worker: (worker / "answer").write_bytes(b"1"),
        lambda worker: shutil.rmtree(worker.with_name("key")),
        # a guest that was booted again is another
        lambda worker: (shutil.rmtree(worker.with_name("key")), make(worker.parent, ram=b"Memory")),
    ],
    ids=["pages", "places", "state", "short pages", "no pages", "answer", "no guest", "another guest"],
)
def test_a_worker_that_is_not_what_was_saved_is_taken_away(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    make(tmp_path)
    place = make_worker(tmp_path, "key+a")
    damage(place)
    assert snapshots.find(tmp_path, "key+a") is None
    assert not place.exists()


def test_a_guest_goes_with_its_workers(tmp_path: Path) -> None:
    for name in ("key", "other"):
        make(tmp_path, name)
        make_worker(tmp_path, f"{name}+a")
    snapshots.discard(tmp_path, "key")
    assert {path.name for path in tmp_path.iterdir()} == {"other", "other+a"}


def test_a_foreign_snapshot_in_its_place_is_taken_away(tmp_path: Path) -> None:
    make(tmp_path, "one", ram=b"one")
    make(tmp_path, "two", ram=b"two")
    (tmp_path / "two" / "ram").replace(tmp_path / "one" / "ram")
    assert snapshots.find(tmp_path, "one") is None


def test_files_are_read_once_then_known_by_inode_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = make(tmp_path)
    forget_verification(place)
    assert snapshots.find(tmp_path, "key") is not None
    monkeypatch.setattr(snapshots, "_digest", lambda _: pytest.fail("read again"))
    assert snapshots.find(tmp_path, "key") is not None


def test_holes_and_zeros_are_the_same(tmp_path: Path) -> None:
    place = make(tmp_path)
    content = (place / "ram").read_bytes()
    (place / "ram").write_bytes(content)  # no holes
    assert snapshots.find(tmp_path, "key") is not None


def test_zeros_of_the_memory_take_no_room(tmp_path: Path) -> None:
    make(tmp_path, ram=b"memory" + bytes(1 << 19) + b"more")
    ((_, size),) = snapshots.held(tmp_path)
    assert size < 1 << 16
    snapshot = snapshots.find(tmp_path, "key")
    assert snapshot is not None
    assert snapshot.ram.read_bytes() == (b"memory" + bytes(1 << 19) + b"more").ljust(1 << 20, b"\0")


def test_everything_the_state_depends_on_is_in_the_key() -> None:
    changes: dict[str, Any] = {
        "vmlinuz": Path("/other/vmlinuz"),
        "modules": Path("/other/modules"),
        "root": Path("/other/root"),
        "accelerator": Accelerator.KVM,
        "cpus": 1,
        "memory_mib": 1024,
        "append": ("lsm=bpf",),
        "headers": Path("/other/headers"),
    }
    assert changes.keys() == {field.name for field in fields(BootSpec)}
    name = snapshots.key(BOOT, "QEMU 7.2")
    others = [snapshots.key(replace(BOOT, **{key: value}), "QEMU 7.2") for key, value in changes.items()]
    others.append(snapshots.key(BOOT, "QEMU 8.0"))
    assert len({name, *others}) == 1 + len(others)


def planned(folder: Path, request: RunRequest) -> Job:
    """Return a guest's job in a project of that folder."""
    image = KernelImage("6.1", "6.1.0", "1", BOOT.vmlinuz, BOOT.modules, Path("/k/vmlinux"))
    guest = provisioning.Guest(ListedGuest("6.1", frozenset()), image)
    folder.mkdir(exist_ok=True)
    run = RunDirectory(Path(tempfile.mkdtemp(dir=folder)))
    jobs = preparation._Jobs(below(folder), RootImage(BOOT.root, "digest"), run, request)
    return jobs.of(guest, BOOT.accelerator, (folder / "slot",), "QEMU 7.2")


def test_where_the_project_lies_is_nothing_that_a_guest_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor where its results and its environment are."""
    monkeypatch.setenv("KERNEL_MATRIX_CACHE", str(tmp_path / "cache"))
    jobs = []
    for name in ("one", "other"):
        monkeypatch.setattr(sys, "executable", str(tmp_path / name / "python"))
        jobs.append(planned(tmp_path / name, REQUEST))
    one, other = jobs
    assert all(getattr(one, field) != getattr(other, field) for field in ("payload", "console", "slots", "vng"))
    assert one.snapshot == other.snapshot == (tmp_path / "cache" / "snapshots", snapshots.key(BOOT, "QEMU 7.2"))


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "middle", "old")):
        place = make(tmp_path, name, ram=os.urandom(1 << 19))
        os.utime(place / "snapshot.json", (1000 - age, 1000 - age))
    sizes = dict(snapshots.held(tmp_path))
    assert [place.name for place in sizes] == ["old", "middle", "new"]
    limit = sizes[tmp_path / "new"] + sizes[tmp_path / "middle"]
    assert snapshots.prune(tmp_path, limit) == [tmp_path / "old"]
    assert snapshots.prune(tmp_path, limit) == []
    make_worker(tmp_path, "middle+a")
    os.utime(tmp_path / "new" / "snapshot.json")
    assert snapshots.prune(tmp_path, sizes[tmp_path / "new"]) == [tmp_path / "middle", tmp_path / "middle+a"]
    assert snapshots.prune(tmp_path, 0) == [tmp_path / "new"]
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    """They are removed only when no other run can still be writing them."""
    left, made = (tmp_path / f".key-{name}" for name in ("killed", "making"))
    for place in (left, made):
        place.mkdir()
        (place / "ram").write_bytes(b"x")
        marker.mark(place)
    os.utime(left, (1000, 1000))
    assert snapshots.prune(tmp_path) == []
    assert list(tmp_path.iterdir()) == [made]


def test_a_folder_without_the_marker_is_never_taken_away(tmp_path: Path) -> None:
    """Whatever its name and content: a guest of an earlier version is used, and the harness's own from then on."""
    others = [tmp_path / name for name in ("key", ".my-notes", "photos")]
    for place in others:
        place.mkdir()
        (place / "snapshot.json").write_text("not ours")
        os.utime(place, (1000, 1000))
    assert snapshots.find(tmp_path, "key") is None
    snapshots.discard(tmp_path, "photos")
    assert snapshots.prune(tmp_path, 0) == []
    with pytest.raises(FileExistsError, match="not ours to delete"):
        make(tmp_path, "key")
    assert sorted(tmp_path.iterdir()) == sorted(others)
    earlier = make(tmp_path, "earlier")
    (earlier / marker.NAME).unlink()
    assert snapshots.prune(tmp_path, 0) == []
    assert snapshots.find(tmp_path, "earlier") is not None
    assert snapshots.prune(tmp_path, 0) == [earlier]


def test_a_guest_keeps_one_worker_of_each_kind(tmp_path: Path) -> None:
    names = [snapshots.worker_name("key", content, kind) for kind in ("", "shell") for content in (b"old", b"new")]
    make(tmp_path, "key")
    for name in names:
        make_worker(tmp_path, name)
    assert {place.name for place, _ in snapshots.held(tmp_path)} == {"key", names[1], names[3]}


def test_a_worker_that_another_run_asked_for_is_requested(tmp_path: Path) -> None:
    """A worker is requested again when another run requested the same one of its kind."""
    ours, shells = snapshots.worker_name("key", b"said"), snapshots.worker_name("key", b"said", "shell")
    assert not snapshots.asked_before(tmp_path, ours, "one")
    assert not snapshots.asked_before(tmp_path, ours, "one")
    assert not snapshots.asked_before(tmp_path, shells, "two")
    assert snapshots.asked_before(tmp_path, ours, "two")


def test_contents_change_by_saving_or_asking_not_by_use(tmp_path: Path) -> None:
    """The digest of the contents changes when an entry is saved or requested, not when it is used."""
    assert snapshots.contents(tmp_path / "none") == frozenset()
    make(tmp_path, "key")
    one, two = (snapshots.worker_name("key", content) for content in (b"one", b"two"))
    seen = [snapshots.contents(tmp_path)]
    snapshots.asked_before(tmp_path, one, "first run")
    seen.append(snapshots.contents(tmp_path))
    snapshots.asked_before(tmp_path, two, "first run")
    seen.append(snapshots.contents(tmp_path))
    make_worker(tmp_path, two)
    seen.append(snapshots.contents(tmp_path))
    assert len(set(seen)) == 4
    assert snapshots.find(tmp_path, two)
    assert snapshots.asked_before(tmp_path, two, "another run")
    assert snapshots.contents(tmp_path) == seen[-1]


def test_what_cannot_be_saved_is_remembered(tmp_path: Path) -> None:
    assert snapshots.unusable(tmp_path, "key") is None
    snapshots.mark_unusable(tmp_path, "key", "no such capability")
    assert snapshots.unusable(tmp_path, "key") == "no such capability"


def aged(path: Path, seconds: float) -> None:
    """Let a file be so old."""
    at = path.stat().st_mtime - seconds
    os.utime(path, (at, at))


@pytest.mark.parametrize("proven", [False, True])
def test_what_is_not_proven_is_asked_again_after_a_while(tmp_path: Path, proven: bool) -> None:
    snapshots.mark_unusable(tmp_path, "key", "it took too long", kernel="6.1", proven=proven)
    aged(tmp_path / "key.unusable", conclusions.AGAIN_AFTER - 60)
    assert snapshots.unusable(tmp_path, "key") == "it took too long"
    aged(tmp_path / "key.unusable", 120)
    assert snapshots.unusable(tmp_path, "key") == ("it took too long" if proven else None)


@pytest.mark.parametrize("proven", [False, True])
def test_what_is_not_proven_is_asked_again_when_wanted(tmp_path: Path, proven: bool) -> None:
    snapshots.mark_unusable(tmp_path, "key", "it took too long", proven=proven)
    snapshots.ask_again(tmp_path, "key")
    assert snapshots.unusable(tmp_path, "key") == ("it took too long" if proven else None)


def test_the_option_reaches_saved_guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNEL_MATRIX_CACHE", str(tmp_path))

    def place(request: RunRequest) -> tuple[Path, str]:
        snapshot = planned(tmp_path, request).snapshot
        assert snapshot is not None
        return snapshot

    snapshots.mark_unusable(*place(REQUEST), "late")
    assert snapshots.unusable(*place(REQUEST)) == "late"
    assert snapshots.unusable(*place(replace(REQUEST, ask_again=True))) is None


def test_what_an_earlier_version_remembered_is_asked_again(tmp_path: Path) -> None:
    (tmp_path / "key.unusable").write_text("not ready after 30 s")
    assert snapshots.unusable(tmp_path, "key") is None
    snapshots.mark_unusable(tmp_path, "key", "QEMU ended")
    assert snapshots.unusable(tmp_path, "key") == "QEMU ended"
