"""What of the project reaches a guest, and that both sides run the same versions."""

from __future__ import annotations

import errno
import io
import os
import re
import tarfile
from pathlib import Path

import pytest

from kernel_matrix.relay import project

ROOT = Path(__file__).parents[1]


def test_sources_and_objects_are_carried_and_caches_are_not(tmp_path: Path) -> None:
    for name in (
        "conftest.py",
        "suites/test_x.py",
        "suites/__pycache__/test_x.pyc",
        "build/x.bpf.o",
        "results/latest/results.jsonl",
        ".git/HEAD",
        ".nox/harness/bin/python",
        ".pytest_cache/v/cache/lastfailed",
        "venv/lib/x.py",
        "baselines/matrix/6.1.json",
        "baselines/durations.json",
        "baselines/capabilities.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    with tarfile.open(fileobj=io.BytesIO(project.pack(tmp_path))) as tar:
        names = tar.getnames()
    assert sorted(names) == ["baselines/capabilities.json", "build/x.bpf.o", "conftest.py", "suites/test_x.py"]
    with tarfile.open(fileobj=io.BytesIO(project.pack(tmp_path, with_cache=True))) as tar:
        assert set(tar.getnames()) - set(names) == {".pytest_cache/v/cache/lastfailed"}


def test_a_folder_that_cannot_be_read_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "suites").mkdir()
    scandir = os.scandir

    def refused(path: str) -> object:
        if Path(path).name == "suites":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PermissionError):
        project.pack(tmp_path)


def test_every_clone_is_carried_alike(tmp_path: Path) -> None:
    """A saved worker is found by what it was told: the time and the umask of a checkout are no part of it."""
    packed = []
    for name, mode, time in (("one", 0o644, 1e9), ("other", 0o600, 1.7e9)):
        root = tmp_path / name
        (root / "suites").mkdir(parents=True)
        for file, program in (("suites/test_x.py", 0), ("suites/tool.sh", 0o100)):
            (root / file).write_text("x")
            (root / file).chmod(mode | program)
            os.utime(root / file, (time, time))
        packed.append(project.pack(root))
    assert packed[0] == packed[1]
    with tarfile.open(fileobj=io.BytesIO(packed[0])) as tar:
        assert [member.mode for member in tar] == [0o644, 0o755]


def test_the_digest_is_of_what_decides_the_results(tmp_path: Path) -> None:
    def write(name: str, text: str) -> str:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        return project.digest(tmp_path)

    first = write("suites/test_x.py", "x")
    for name in ("build/x.bpf.o", "results/latest/matrix.json", "shard-1/matrix.json", "README.md", ".git/HEAD"):
        assert write(name, "x") == first
    for name in (
        "suites/test_y.py",
        "requirements/host.txt",
        "vmimages/kernels.toml",
        "suites/test_x.py",
        "conftest.py",
    ):
        before = project.digest(tmp_path)
        assert write(name, "y") != before


def locked(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text()
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", text, re.MULTILINE))


def test_the_guest_has_the_versions_of_the_host() -> None:
    host, guest = locked("host.txt"), locked("guest.txt")
    assert {"pytest", "pytest-xdist", "execnet", "scapy", "pyroute2"} <= set(guest)
    assert {name: host[name] for name in guest} == guest


def test_a_job_starts_with_the_nox_of_the_lock() -> None:
    host, start = locked("host.txt"), locked("nox.txt")
    assert "nox" in start
    assert {name: host[name] for name in start} == start


def test_every_locked_package_has_hashes() -> None:
    for name in ("host.txt", "guest.txt", "nox.txt", "go.txt"):
        text = (ROOT / "requirements" / name).read_text()
        packages = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
        assert len(packages) == len(locked(name)) > 0
        assert all("--hash=sha256:" in package for package in packages)
