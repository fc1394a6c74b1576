"""What is installed is locked, and the guest's half and the host's run the same versions."""

from __future__ import annotations

import re
from pathlib import Path

from tests.projects import HERE, ROOT

REQUIREMENTS = ROOT / "requirements"
HOST, NOX, GO = (REQUIREMENTS / f"{name}.txt" for name in ("host", "nox", "go"))
GUEST = HERE.images / "requirements.txt"


def locked(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", path.read_text(), re.MULTILINE))


def test_the_guest_has_the_versions_of_the_host() -> None:
    host, guest = locked(HOST), locked(GUEST)
    assert {"pytest", "pytest-xdist", "execnet", "scapy", "pyroute2"} <= set(guest)
    assert {name: host[name] for name in guest} == guest


def test_a_job_starts_with_the_nox_of_the_lock() -> None:
    host, start = locked(HOST), locked(NOX)
    assert "nox" in start
    assert {name: host[name] for name in start} == start


def test_every_locked_package_has_hashes() -> None:
    for path in (HOST, GUEST, NOX, GO):
        text = path.read_text()
        packages = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
        assert len(packages) == len(locked(path)) > 0
        assert all("--hash=sha256:" in package for package in packages)
