"""What tracing and pinning need of the file system: tracefs, bpffs, and a name that is free.

Kernel: bpf_obj_do_pin() (kernel/bpf/inode.c) wants a folder of bpffs, EPERM otherwise; bpf_obj_do_get() a file of it,
EACCES otherwise. libbpf reads a tracepoint's number from tracefs, and looks at a pin's file system before the kernel
does.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.calls import bpf_calls
from kernel_matrix.guest.pytest.refusal import Refused
from kernel_matrix.guest.system.mounts import BPFFS, with_bpffs, without

_ARRAY = steps.MapSpec("array", key=4, value=4, entries=1)
_TRACEFS = ("/sys/kernel/tracing", "/sys/kernel/debug")


@pytest.fixture
def array() -> Iterator[int]:
    """Make a map, and give its file descriptor."""
    fd = steps.create_map(_ARRAY)
    yield fd
    os.close(fd)


# -- tracefs


def _tracepoint(programs: dict[str, steps.Program]) -> None:
    with steps.tracepoint(programs["tracepoint"], "sched", "sched_switch"):
        pass


def test_a_tracepoint_needs_tracefs(refused: Refused, programs: dict[str, steps.Program]) -> None:
    """ENOENT: there is no file with its number, in tracefs or below debugfs."""
    with refused(errno.ENOENT, stage="attach"):
        without(unmounting=_TRACEFS, do=lambda: _tracepoint(programs))
    without(do=lambda: _tracepoint(programs))


def _kprobe(programs: dict[str, steps.Program]) -> None:
    with steps.kprobe(programs["kprobe"], "do_nanosleep"):
        pass


def _raw_tracepoint(programs: dict[str, steps.Program]) -> None:
    with ExitStack() as undo:
        bpf_calls.raw_tracepoint(programs["raw_tracepoint"].fd, "sched_switch", undo)


def _fentry(programs: dict[str, steps.Program]) -> None:
    with steps.by_section(programs["fentry"]):
        pass


@pytest.mark.parametrize("attach", [_kprobe, _raw_tracepoint, _fentry], ids=["kprobe", "raw tracepoint", "fentry"])
def test_other_hooks_need_no_tracefs(
    programs: dict[str, steps.Program], attach: Callable[[dict[str, steps.Program]], None]
) -> None:
    """A kprobe is a perf event by its function's name, a raw tracepoint has its name, fentry a BTF id."""
    without(unmounting=_TRACEFS, do=lambda: attach(programs))


# -- bpffs


def test_pinning_needs_bpffs(refused: Refused, array: int) -> None:
    """Mounted on /sys/fs/bpf the same call works that is refused there without it.

    Not with EPERM as on another file system: what sysfs_create_mount_point() makes stays empty for ever, and looking
    for any name in it is ENOENT (fs/libfs.c, empty_dir_lookup()).
    """
    assert BPFFS.is_dir()
    assert not BPFFS.is_mount()
    with refused(errno.ENOENT, stage="pin"):
        steps.pin(array, BPFFS / "map")
    with_bpffs(lambda folder: steps.pin(array, folder / "map"))


def test_pinning_on_another_file_system(refused: Refused, array: int, tmp_path: Path) -> None:
    """EPERM, and no file is left."""
    with refused(errno.EPERM, stage="pin"):
        steps.pin(array, tmp_path / "map")
    assert not list(tmp_path.iterdir())
    with_bpffs(lambda folder: steps.pin(array, folder / "map"))


def test_libbpf_refuses_another_file_system_itself(
    refused: Refused, programs: dict[str, steps.Program], tmp_path: Path
) -> None:
    """check_path() compares the file system's magic number: EINVAL, where the kernel would say EPERM."""
    program = programs["socket_filter"]
    with refused(errno.EINVAL, stage="pin") as refusal:
        steps.pin_program(program, tmp_path / "program")
    assert "is not on BPF FS" in refusal.log
    with_bpffs(lambda folder: steps.pin_program(program, folder / "program"))


def test_a_name_that_is_taken(refused: Refused, array: int) -> None:
    """EEXIST, by filename_create(): even for the same map; another name is free, and so is this one once it is gone."""

    def twice(folder: Path) -> None:
        steps.pin(array, folder / "map")
        steps.pin(array, folder / "other")
        (folder / "map").unlink()
        steps.pin(array, folder / "map")
        steps.pin(array, folder / "map")

    with refused(errno.EEXIST, stage="pin"):
        with_bpffs(twice)


@pytest.mark.parametrize(
    ("name", "refused_errno"),
    [
        # filename_create(): the folder has to be there
        ("folder/map", errno.ENOENT),
        # bpf_lookup(): dots are kept for the future
        ("map.v1", errno.EPERM),
        # path lookup: NAME_MAX
        ("m" * 256, errno.ENAMETOOLONG),
    ],
    ids=["a folder that is missing", "a dot", "256 letters"],
)
def test_a_name_that_bpffs_does_not_take(refused: Refused, array: int, name: str, refused_errno: int) -> None:
    """And its like that it takes."""
    with refused(refused_errno, stage="pin"):
        with_bpffs(lambda folder: steps.pin(array, folder / name))

    def right(folder: Path) -> None:
        (folder / "folder").mkdir()
        steps.pin(array, folder / name.replace(".", "_")[:255])

    with_bpffs(right)


def test_opening_what_is_no_pin(refused: Refused, array: int, tmp_path: Path) -> None:
    """ENOENT for no file, EACCES for one that is not BPF's; a pin opens."""
    path = tmp_path / "file"
    with refused(errno.ENOENT, stage="open"):
        os.close(steps.open_pin(path))
    path.touch()
    with refused(errno.EACCES, stage="open"):
        os.close(steps.open_pin(path))

    def right(folder: Path) -> None:
        steps.pin(array, folder / "map")
        os.close(steps.open_pin(folder / "map"))

    with_bpffs(right)
