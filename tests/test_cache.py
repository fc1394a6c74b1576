"""The cache: whole or not there, whatever happens while something is made."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.images import cache
from kernel_matrix.images.packages import archive
from kernel_matrix.shared import marker
from kernel_matrix.shared.errors import ImageError


def test_what_was_made_well_is_there_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "image"
    with cache.building(target) as place:
        (place / "file").write_text("x")
        assert not target.exists()
    assert [path.name for path in target.parent.iterdir()] == ["image"]
    assert (target / "file").read_text() == "x"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_an_interruption_leaves_nothing(tmp_path: Path, interruption: type[BaseException]) -> None:
    target = tmp_path / "image"

    def interrupted() -> None:
        with cache.building(target) as place:
            (place / "read-only").mkdir()
            (place / "read-only" / "file").touch()
            (place / "read-only").chmod(0o500)
            raise interruption

    with pytest.raises(interruption):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    with pytest.raises(ImageError, match=r"^no space left for images in [^\n]+$"), cache.building(tmp_path / "image"):
        raise OSError(number, os.strerror(number))
    assert list(tmp_path.iterdir()) == []


def test_a_failing_tool_is_its_own_line() -> None:
    with pytest.raises(ImageError, match=r"^making it failed: E: because$"):
        cache.run(["sh", "-c", "echo noise; echo 'E: because' >&2; exit 3"], "making it")
    with pytest.raises(ImageError, match=r"^making it failed: x: No space left on device$"):
        cache.run(["sh", "-c", "echo 'error: y' >&2; echo 'x: No space left on device' >&2; exit 1"], "making it")
    with pytest.raises(ImageError, match=r"^no-such-tool is missing: run `kernel-matrix bootstrap`$"):
        cache.run(["no-such-tool"], "making it")


@given(st.lists(st.binary(max_size=5), max_size=5), st.lists(st.binary(max_size=5), max_size=5))
def test_a_digest_tells_lists_apart(one: list[bytes], other: list[bytes]) -> None:
    assert (cache.digest(one) == cache.digest(other)) == (one == other)


def test_a_corrupt_download_is_deleted_and_named(tmp_path: Path) -> None:
    deb = tmp_path / "linux-image_1_amd64.deb"
    deb.write_bytes(b"half of it")
    package = archive.Package("linux-image", "1", "00" * 32, 20)
    assert archive.find_deb(tmp_path, package) == deb
    with pytest.raises(ImageError, match=r"^linux-image 1: the download is corrupt \(sha256 [0-9a-f]{12}\.\.\.\)$"):
        archive.verify(deb, package)
    assert not deb.exists()
    with pytest.raises(ImageError, match=r"^linux-image 1 was not downloaded$"):
        archive.find_deb(tmp_path, package)


def test_what_no_run_has_used_for_long_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNEL_MATRIX_CACHE", str(tmp_path))
    longer, shorter = (time.time() - days * 86400 for days in (cache.UNUSED_DAYS + 1, cache.UNUSED_DAYS - 1))
    last_used = {
        "kernels/old": longer,
        "kernels/recent": shorter,
        "kernels/.building-killed": longer,
        "roots/used again": longer,
        "snapshots/not an image": longer,
    }
    for name, at in last_used.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").touch()
        marker.mark(tmp_path / name)
        os.utime(tmp_path / name, (at, at))
    cache.used(tmp_path / "roots/used again")
    assert cache.prune() == [tmp_path / "kernels/.building-killed", tmp_path / "kernels/old"]
    left = {str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("file")}
    assert left == {"kernels/recent", "roots/used again", "snapshots/not an image"}
    assert cache.prune() == []


def test_what_the_harness_has_not_made_is_not_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache's folder is a setting: another project's kernels may lie there, or an earlier version's images."""
    monkeypatch.setenv("KERNEL_MATRIX_CACHE", str(tmp_path))
    for name in ("kernels/linux-6.1", "kernels/.git-worktree", "roots/of an earlier version", "kernels/made"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").touch()
    with cache.building(tmp_path / "kernels/image"):
        pass
    cache.used(tmp_path / "roots/of an earlier version")
    (tmp_path / "kernels/link").symlink_to("image")
    for place in tmp_path.glob("*/*"):
        os.utime(place, (1000, 1000))
    assert cache.prune() == [tmp_path / "kernels/image", tmp_path / "roots/of an earlier version"]
    left = {str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("file")}
    assert left == {"kernels/linux-6.1", "kernels/.git-worktree", "kernels/made"}


def test_what_a_killed_run_leaves_of_its_work_is_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNEL_MATRIX_CACHE", str(tmp_path))
    (tmp_path / "roots").mkdir()
    with cache.working(".root-", tmp_path / "roots") as place:
        os.utime(place, (1000, 1000))
        assert cache.prune() == [place]
        place.mkdir()  # for the block to delete
    assert list((tmp_path / "roots").iterdir()) == []


def test_the_use_of_an_image_that_is_not_there_is_not_noted(tmp_path: Path) -> None:
    cache.used(tmp_path / "not there")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_an_image_of_others_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refused(path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "utime", refused)
    cache.used(tmp_path)


def test_a_cache_that_is_no_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        cache.used(tmp_path / "file" / "image")


def test_what_cannot_be_deleted_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNEL_MATRIX_CACHE", str(tmp_path))
    old = tmp_path / "kernels" / "old"
    old.mkdir(parents=True)
    marker.mark(old)
    os.utime(old, (0, 0))

    def refused(path: str, **_: object) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)

    monkeypatch.setattr(os, "rmdir", refused)
    with pytest.raises(OSError, match="busy"):
        cache.prune()


def test_a_link_that_leads_out_of_a_folder_is_deleted_alone(tmp_path: Path) -> None:
    """A root that was left half made has /var/run -> /run, which is the machine's."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "run").symlink_to(outside)
    cache.remove(tmp_path / "image")
    assert not (tmp_path / "image").exists()
    assert outside.stat().st_mode & 0o777 == 0o755


def test_no_setting_of_this_python_reaches_an_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """PYTHONPYCACHEPREFIX would put compiled modules where no guest looks, under a path of this machine."""
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", "/somewhere")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    names = cache.run(["env"], "showing the environment").splitlines()
    assert [name for name in names if name.startswith("PYTHON")] == []
    names = cache.run(["env"], "showing the environment", environment={"PYTHONHOME": "/x", "KEPT": "1"}).splitlines()
    assert [name for name in names if name.startswith(("PYTHON", "KEPT"))] == ["KEPT=1"]
