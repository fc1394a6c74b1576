"""Which mirror is used: a setting, or what the machine's own apt uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_matrix.images.packages import mirror
from kernel_matrix.shared.errors import ImageError

DEB822 = """\
# the archive
Types: deb deb-src
URIs: http://a.example/debian
Suites: trixie
  trixie-updates
Components: main contrib
Signed-By: /usr/share/keyrings/x.gpg

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: trixie
Components: main

Types: deb
URIs: http://s.example/debian-security/
Suites: trixie-security
Components: main
"""


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KERNEL_MATRIX_MIRROR", raising=False)
    monkeypatch.delenv("KERNEL_MATRIX_SECURITY_MIRROR", raising=False)


def sources(etc: Path, **files: str) -> Path:
    (etc / "sources.list.d").mkdir()
    for name, text in files.items():
        path = etc / "sources.list" if name == "main" else etc / "sources.list.d" / name.replace("_", ".")
        path.write_text(text)
    return etc


def test_deb822_sources(tmp_path: Path) -> None:
    archive = mirror.find(sources(tmp_path, debian_sources=DEB822))
    assert archive == mirror.Mirror("http://a.example/debian", "http://s.example/debian-security")
    assert archive.uri("trixie-backports") == "http://a.example/debian"
    assert archive.uri("bookworm-security") == "http://s.example/debian-security"


def test_one_line_sources(tmp_path: Path) -> None:
    text = (
        "# deb http://no.example/debian bookworm main\n"
        "deb-src http://no.example/debian bookworm main\n"
        "deb http://no.example/other bookworm contrib\n"
        "deb [arch=amd64 signed-by=/x.gpg] http://a.example/debian/ bookworm main contrib # ours\n"
    )
    assert mirror.find(sources(tmp_path, main=text)) == mirror.Mirror(
        "http://a.example/debian", "http://a.example/debian-security"
    )


def test_a_setting_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNEL_MATRIX_MIRROR", "http://mine.example/debian/")
    assert mirror.find(sources(tmp_path, debian_sources=DEB822)) == mirror.Mirror(
        "http://mine.example/debian", "http://s.example/debian-security"
    )


def test_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        ImageError, match=r"^no Debian mirror: .* set KERNEL_MATRIX_MIRROR and KERNEL_MATRIX_SECURITY_MIRROR$"
    ):
        mirror.find(sources(tmp_path, other_list="deb http://x.example/ubuntu noble main\n"))
