"""The programs that virtme-ng finds in place of the machine's: each says what the engine knows already."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from kernel_matrix.relay import machine

TOOLS = Path(machine.__file__).with_name("tools")
RELEASE = "6.12.95+deb13.1-cloud-amd64"


def test_all_of_them_come_first_on_virtme_ngs_path() -> None:
    assert machine.search_path(Path("/bin")).split(":")[0] == str(TOOLS)
    assert sorted(path.name for path in TOOLS.iterdir()) == ["qemu-img", "strings"]
    assert all(path.stat().st_mode & 0o111 for path in TOOLS.iterdir())


def test_the_root_images_format_is_raw() -> None:
    done = subprocess.run([TOOLS / "qemu-img", "info", "x"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"format": "raw"}


def test_virtme_ng_has_a_kernels_release_from_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By virtme-ng's own function: of an uncompressed kernel `file` says nothing of a version."""
    from virtme.commands import run

    kernel = tmp_path / f"vmlinuz-{RELEASE}"
    kernel.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(100))
    monkeypatch.setenv("PATH", machine.search_path(tmp_path))
    assert run.get_kernel_version(str(kernel)) == RELEASE
