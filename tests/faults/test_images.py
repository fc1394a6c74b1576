"""Downloads that are not what they should be and disks that are full: one line, and a cache that is as before.

These need the mirror, no guest.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kernel_matrix import images
from kernel_matrix.config import manifest
from tests.projects import HERE

ROOT = Path(__file__).resolve().parents[2]
KERNEL = "6.1"
LIMIT = 300.0
#: an apt-get whose downloads lose their second half
_CORRUPTING = """#!/bin/sh
{real} "$@"
status=$?
for package in *.deb; do
    [ -f "$package" ] && truncate --size=1000000 "$package"
done
exit $status
"""


def command(tmp_path: Path, *arguments: str) -> list[str]:
    matrix = [
        sys.executable,
        "-m",
        "kernel_matrix",
        "matrix",
        f"--results={tmp_path / 'results'}",
        "--kernel",
        *arguments,
    ]
    # a background job of a shell ignores Ctrl-C, and so would this
    return ["env", "--default-signal=INT", *matrix]


def run(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )


def root_image() -> Path:
    """Return the cache's folder of the root image that every run needs first; beside it are those of other days."""
    return images.root_image(manifest.load(HERE.images)).path.parent


def test_a_corrupt_package_is_never_used_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = tmp_path / "cache"
    shutil.copytree(root_image(), fresh / "roots" / root_image().name, copy_function=os.link)
    wrapper = tmp_path / "bin" / "apt-get"
    wrapper.parent.mkdir()
    wrapper.write_text(_CORRUPTING.format(real=shutil.which("apt-get")))
    wrapper.chmod(0o755)
    monkeypatch.setenv("KERNEL_MATRIX_CACHE", str(fresh))
    done = run(command(tmp_path, KERNEL), {"PATH": f"{wrapper.parent}:{os.environ['PATH']}"})
    assert done.returncode == 3, done.stdout + done.stderr
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "the download is corrupt" in line]
    assert f"{KERNEL}: linux-image-6.1.0-" in lines[-1]
    assert "Traceback" not in done.stdout + done.stderr
    assert list((fresh / "kernels").iterdir()) == []
    known = manifest.load(HERE.images)
    image = images.kernel_image(known, manifest.select(known, [KERNEL])[0])
    assert image.vmlinuz.stat().st_size > 1_000_000


def mebibytes(folder: Path) -> int:
    """Return the size of a folder's files, rounded up."""
    return sum((path.stat().st_size >> 20) + 1 for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("room", "with_root"), [(30, False), (40, True)], ids=["root", "kernel"])
def test_a_full_disk_is_one_line_and_leaves_nothing_behind(tmp_path: Path, room: int, *, with_root: bool) -> None:
    """A file system of that size holds the cache: too small for the root image, or for a kernel's package."""
    small = tmp_path / "small"
    small.mkdir()
    size = f"{room + (mebibytes(root_image()) if with_root else 0)}m"
    copied = f"mkdir {small}/roots && cp -r {root_image()} {small}/roots/ &&" if with_root else ""
    script = f"""
mount -t tmpfs -o size={size} none {small} && {copied} "$@"
status=$?
mkdir -p {small}/roots {small}/kernels
find {small}/roots {small}/kernels -mindepth 1 -maxdepth 1 | sed 's/^/LEFT /'
exit $status
"""
    arguments = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    arguments += ["sh", "-c", script, "sh", *command(tmp_path, "7.3", "--loader", "libbpf")]
    done = run(arguments, {"KERNEL_MATRIX_CACHE": str(small)})
    assert done.returncode == 3, done.stdout + done.stderr
    assert "no space left" in (done.stdout + done.stderr).lower()
    assert "Traceback" not in done.stdout + done.stderr
    left = [Path(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("LEFT ")]
    assert [path.parent.name for path in left] == (["roots"] if with_root else [])


def test_a_full_disk_means_a_cold_boot_that_says_so(tmp_path: Path) -> None:
    """A disk without room for a saved guest is a cold boot, and the run says so."""
    small = tmp_path / "small"
    small.mkdir()
    known = manifest.load(HERE.images)
    kernel = images.kernel_image(known, manifest.select(known, [KERNEL])[0]).vmlinuz.parents[1]
    size = mebibytes(root_image()) + mebibytes(kernel) + 100
    script = f"""
mount -t tmpfs -o size={size}m none {small} && mkdir {small}/kernels {small}/roots &&
cp -r {root_image()} {small}/roots/ && cp -r {kernel} {small}/kernels/ &&
cp {images.cache_dir()}/accelerator-*.json {small}/; "$@"
"""
    arguments = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    arguments += [
        "sh",
        "-c",
        script,
        "sh",
        *command(tmp_path, KERNEL, "tests/faults/cases/case_hang.py", "-k", "before"),
    ]
    done = run(arguments, {"KERNEL_MATRIX_CACHE": str(small)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"note: {KERNEL}: no snapshot: {small}/snapshots: No space left on device" in done.stdout
    assert "1 cold in " in done.stdout


def test_two_runs_that_want_the_same_kernel_download_it_once(tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from kernel_matrix import images
from kernel_matrix.config import manifest
known = manifest.load(Path({str(HERE.images)!r}))
print(images.kernel_image(known, manifest.select(known, [{KERNEL!r}])[0]).vmlinuz)
"""
    both = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={**os.environ, "KERNEL_MATRIX_CACHE": str(tmp_path / "cache")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=LIMIT) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert sum("downloading" in errors for _, errors in outputs) == 1


def test_ctrl_c_while_the_root_image_is_made_leaves_nothing(tmp_path: Path) -> None:
    fresh = tmp_path / "cache"
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with subprocess.Popen(
        command(tmp_path, KERNEL),
        cwd=ROOT,
        env={**os.environ, "KERNEL_MATRIX_CACHE": str(fresh), "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        # the last thing that is laid out before mmdebstrap starts
        end = time.monotonic() + LIMIT
        while not list(fresh.glob("roots/.root-*/staging/harness")):
            assert time.monotonic() < end
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert process.wait(0.05) is None
        os.killpg(process.pid, signal.SIGINT)
        output = process.communicate(timeout=LIMIT)[0]
        assert process.returncode == 2, output
    assert "Traceback" not in output
    assert list((fresh / "roots").iterdir()) == []
    assert list(temporary.iterdir()) == []
    assert str(temporary) not in Path("/proc/mounts").read_text()
