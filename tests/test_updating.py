"""The lock moves to what an archive has, and never because an archive does not answer."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec
import pytest

from kernel_matrix import images
from kernel_matrix.config import manifest
from kernel_matrix.images import image as kernel_images
from kernel_matrix.images.packages import archive, lock, unpack
from kernel_matrix.images.packages.archive import Package, Suite
from kernel_matrix.images.providers import debian
from kernel_matrix.shared.errors import ImageError, NotInArchive

ROOT = Path(__file__).resolve().parent.parent
#: a whole kernel and one in parts, as Debian has them
OLD, NEW = "linux-image-6.1.0-56-amd64", "linux-image-7.3.4+deb13-amd64"
PARTS = ("linux-base-7.3.4+deb13-amd64", "linux-binary-7.3.4+deb13-amd64", "linux-modules-7.3.4+deb13-amd64")


def package(name: str, version: str, depends: str = "") -> Package:
    return Package(name, version, "ab" * 32, 1, depends)


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Package] | ImageError]:
    """What each suite of the archive answers."""
    answers: dict[str, list[Package] | ImageError] = {
        "bookworm-security": [package(OLD, "6.1.192-2")],
        "trixie-backports": [
            package(NEW, "7.3.4-1", ", ".join(f"{part} (= 7.3.4-1)" for part in PARTS)),
            *[package(part, "7.3.4-1") for part in PARTS],
        ],
    }

    def packages(suite: Suite, pattern: str) -> tuple[Package, ...]:
        answer = answers[suite.name]
        if isinstance(answer, ImageError):
            raise answer
        return tuple(entry for entry in answer if re.fullmatch(pattern, entry.name))

    monkeypatch.setattr(Suite, "packages", packages)
    return answers


@pytest.fixture
def known(tmp_path: Path) -> manifest.Manifest:
    """A manifest of two kernels, and their lock as it was written long ago."""
    whole = manifest.load(ROOT / "vmimages")
    folder = tmp_path / "vmimages"
    folder.mkdir()
    packages = {"6.1": [package("linux-image-6.1.0-1-amd64", "6.1.1-1")], "7.3": [package("x", "7.3.1-1")]}
    (folder / "kernels.lock.toml").write_text(lock.format_lock(lock.Lock(packages)))
    return msgspec.structs.replace(whole, folder=folder, kernels=manifest.select(whole, ["6.1", "7.3"]))


def locked(known: manifest.Manifest) -> dict[str, str]:
    entries = lock.read(known.folder / "kernels.lock.toml")
    return {kernel: packages[0].version for kernel, packages in entries.kernels.items()}


Offered = dict[str, list[Package] | ImageError]


def test_the_lock_moves_to_the_newest(known: manifest.Manifest, offered: Offered) -> None:
    assert offered
    assert images.update_lock(known) == ["6.1: 6.1.1-1 -> 6.1.192-2", "7.3: 7.3.1-1 -> 7.3.4-1"]
    assert locked(known) == {"6.1": "6.1.192-2", "7.3": "7.3.4-1"}
    assert images.update_lock(known) == ["the lock is up to date"]


@pytest.mark.parametrize(
    "dead", [["bookworm-security"], ["trixie-backports"], ["bookworm-security", "trixie-backports"]]
)
def test_an_archive_that_does_not_answer_changes_nothing(
    known: manifest.Manifest, offered: Offered, dead: list[str]
) -> None:
    before = (known.folder / "kernels.lock.toml").read_bytes()
    for suite in dead:
        offered[suite] = ImageError(f"reading the index of {suite} failed: E: Mirror sync in progress?")
    with pytest.raises(ImageError, match=r"^reading the index of [^\n]+; kernels\.lock\.toml is unchanged$") as refusal:
        images.update_lock(known)
    assert refusal.value.exit_status == 3
    assert (known.folder / "kernels.lock.toml").read_bytes() == before


@pytest.mark.parametrize("missing", PARTS[1:])
def test_a_locked_kernel_without_all_parts_changes_nothing(
    known: manifest.Manifest, offered: Offered, missing: str
) -> None:
    """So looks an archive that is being synchronised."""
    backports = offered["trixie-backports"]
    assert isinstance(backports, list)
    offered["trixie-backports"] = [entry for entry in backports if entry.name != missing]
    line = rf"no complete 7\.3: {missing} is not there; .* out of the lock; kernels\.lock\.toml is unchanged$"
    with pytest.raises(ImageError, match=line.replace("+", r"\+")):
        images.update_lock(known)
    assert locked(known) == {"6.1": "6.1.1-1", "7.3": "7.3.1-1"}


def test_a_kernel_that_the_archive_has_not_is_dropped_in_a_line(known: manifest.Manifest, offered: Offered) -> None:
    offered["trixie-backports"] = [package("linux-image-7.4.1+deb13-amd64", "7.4.1-1")]
    assert images.update_lock(known) == [
        "6.1: 6.1.1-1 -> 6.1.192-2",
        "kernel 7.3: the mirror has no 7.3 amd64 in trixie-backports: 7.3.1-1 is no longer locked",
    ]
    assert locked(known) == {"6.1": "6.1.192-2"}


def test_a_missing_package_that_no_guest_needs_stays_locked(known: manifest.Manifest, offered: Offered) -> None:
    images.update_lock(known)
    before = (known.folder / "kernels.lock.toml").read_text()
    backports = offered["trixie-backports"]
    assert isinstance(backports, list)
    offered["trixie-backports"] = [entry for entry in backports if entry.name != PARTS[0]]
    assert images.update_lock(known) == [f"7.3: the mirror has no {PARTS[0]} now: the lock keeps it"]
    assert (known.folder / "kernels.lock.toml").read_text() == before


def test_a_package_with_another_content_is_said(known: manifest.Manifest, offered: Offered) -> None:
    images.update_lock(known)
    offered["bookworm-security"] = [Package(OLD, "6.1.192-2", "cd" * 32, 1)]
    assert images.update_lock(known) == ["6.1: 6.1.192-2 with other packages"]


def test_a_kernel_out_of_the_manifest_leaves_the_lock(known: manifest.Manifest, offered: Offered) -> None:
    assert offered
    images.update_lock(known)
    without = msgspec.structs.replace(known, kernels=known.kernels[:1])
    assert images.update_lock(without) == ["7.3: not in the manifest, no longer locked"]
    assert set(locked(known)) == {"6.1"}


def test_a_kernel_of_a_provider_that_locks_nothing_is_not_locked(known: manifest.Manifest, offered: Offered) -> None:
    assert offered
    own = manifest.Kernel(tier="core", provider="path", name="7.3", keys={"vmlinuz": "/x"})
    other = msgspec.structs.replace(known, kernels=(known.kernels[0], own))
    assert images.update_lock(other) == ["6.1: 6.1.1-1 -> 6.1.192-2", "7.3: not in the manifest, no longer locked"]
    assert set(locked(known)) == {"6.1"}


def test_a_kernel_that_was_never_whole_is_a_line(known: manifest.Manifest, offered: Offered) -> None:
    (known.folder / "kernels.lock.toml").write_text("")
    backports = offered["trixie-backports"]
    assert isinstance(backports, list)
    offered["trixie-backports"] = backports[:-1]
    assert images.update_lock(known) == [
        "6.1: (none) -> 6.1.192-2",
        f"kernel 7.3: the mirror has no complete 7.3: {PARTS[2]} is not there: not locked",
    ]
    assert images.unlocked(known, known.kernels) == ("7.3",)


def test_an_archive_without_any_of_the_kernels_changes_nothing(known: manifest.Manifest, offered: Offered) -> None:
    for suite in offered:
        offered[suite] = [package("linux-image-9.9.9-1-amd64", "9.9.9-1")]
    with pytest.raises(ImageError, match=r"^the mirror has none of the kernels; kernels\.lock\.toml is unchanged$"):
        images.update_lock(known)
    assert locked(known) == {"6.1": "6.1.1-1", "7.3": "7.3.1-1"}


def test_an_index_without_a_kernel_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian has no suite without one: the index is there, what it names is not."""
    monkeypatch.setenv("KERNEL_MATRIX_CACHE", str(tmp_path))
    monkeypatch.setattr(Suite, "_refresh", lambda _: None)
    monkeypatch.setattr(archive, "run", lambda *_: "")
    with pytest.raises(ImageError, match=r"^the index of trixie-backports names no kernel at all: "):
        Suite("trixie-backports").packages("linux-image-.*")


def test_a_mirror_that_is_not_there_is_one_line(
    known: manifest.Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With apt itself: port 1 of this machine, where nobody listens."""
    monkeypatch.setenv("KERNEL_MATRIX_CACHE", str(tmp_path / "cache"))
    for name in ("KERNEL_MATRIX_MIRROR", "KERNEL_MATRIX_SECURITY_MIRROR"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/debian")
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(debian, "_suites", {})
    with pytest.raises(ImageError, match=r"^reading the index of bookworm-security failed: [^\n]+ is unchanged$"):
        images.update_lock(known)
    assert locked(known) == {"6.1": "6.1.1-1", "7.3": "7.3.1-1"}


def test_a_kernel_without_a_lock_is_named_when_asked_for(
    known: manifest.Manifest, offered: Offered, monkeypatch: pytest.MonkeyPatch
) -> None:
    (known.folder / "kernels.lock.toml").write_text("")
    image = images.KernelImage("6.1", "6.1.0", "6.1.192-2", Path(), Path(), Path())
    monkeypatch.setattr(kernel_images, "cached", lambda *_: image)
    assert images.kernel_image(known, known.kernels[0]).notes == ("it is not locked: using 6.1.192-2",)
    with pytest.raises(ImageError, match=r"^kernel 6\.1: it is not locked$"):
        images.kernel_image(known, known.kernels[0], locked_only=True)
    offered["bookworm-security"] = [package("linux-image-6.2.0-1-amd64", "6.2.1-1")]
    with pytest.raises(ImageError, match=r"^kernel 6\.1: the mirror has no 6\.1 amd64 in [a-z-]+; it is not locked$"):
        images.kernel_image(known, known.kernels[0])


HEADERS = "linux-headers-6.1.0-56-amd64"
COMMON = "linux-headers-6.1.0-56-common"


def with_headers(offered: Offered, version: str) -> None:
    headers = [package(HEADERS, version, f"{COMMON} (= {version}), linux-kbuild-6.1"), package(COMMON, version)]
    offered["bookworm-security"] = [package(OLD, "6.1.192-2"), *headers]


def locked_headers(known: manifest.Manifest) -> dict[str, set[str]]:
    entries = lock.read(known.folder / lock.NAME).headers
    return {kernel: {f"{entry.name} {entry.version}" for entry in packages} for kernel, packages in entries.items()}


@pytest.mark.parametrize("locked_only", [False, True])
def test_a_kernel_without_headers_is_told_from_a_failure(
    locked_only: bool,
    known: manifest.Manifest,
    offered: Offered,
) -> None:
    """None in the lock and none in the archive: it has none. Where the lock has some, they are missing."""
    image = images.KernelImage("6.1", "6.1.0-57-amd64", "6.1.193-1", Path(), Path(), Path())
    with pytest.raises(NotInArchive, match=r"^kernel 6\.1: [^\n]*no headers of 6\.1\.193-1"):
        images.kernel_headers(known, known.kernels[0], image, locked_only=locked_only)
    with_headers(offered, "6.1.192-2")
    images.update_lock(known)
    with pytest.raises(ImageError, match=r"^kernel 6\.1: [^\n]*no headers of 6\.1\.193-1") as caught:
        images.kernel_headers(known, known.kernels[0], image, locked_only=locked_only)
    assert type(caught.value) is ImageError


def test_headers_are_locked_with_their_kernel(known: manifest.Manifest, offered: Offered) -> None:
    with_headers(offered, "6.1.192-2")
    assert "6.1: with headers of 6.1.192-2" in images.update_lock(known)
    assert locked_headers(known) == {"6.1": {f"{HEADERS} 6.1.192-2", f"{COMMON} 6.1.192-2"}}
    assert images.update_lock(known) == ["the lock is up to date"]


def test_headers_of_another_version_are_not_locked(known: manifest.Manifest, offered: Offered) -> None:
    with_headers(offered, "6.1.191-1")
    images.update_lock(known)
    assert locked_headers(known) == {}
    assert locked(known)["6.1"] == "6.1.192-2"


def test_headers_that_are_missing_now_stay_locked(known: manifest.Manifest, offered: Offered) -> None:
    with_headers(offered, "6.1.192-2")
    images.update_lock(known)
    before = locked_headers(known)
    offered["bookworm-security"] = [package(OLD, "6.1.192-2")]
    assert images.update_lock(known) == ["the lock is up to date"]
    assert locked_headers(known) == before


def test_headers_that_a_newer_kernel_lacks_are_reported(known: manifest.Manifest, offered: Offered) -> None:
    with_headers(offered, "6.1.192-2")
    images.update_lock(known)
    offered["bookworm-security"] = [package("linux-image-6.1.0-57-amd64", "6.1.193-1")]
    assert images.update_lock(known) == [
        "6.1: 6.1.192-2 -> 6.1.193-1",
        "kernel 6.1: the mirror has no headers of 6.1.193-1 (6.1.0-57-amd64): no longer locked",
    ]


def image_of(version: str) -> kernel_images.KernelImage:
    return kernel_images.KernelImage("6.1", "6.1.0-56-amd64", version, Path(), Path(), Path())


def headers_of(known: manifest.Manifest, version: str, *, locked_only: bool = False) -> Path:
    return images.kernel_headers(known, known.kernels[0], image_of(version), locked_only=locked_only)


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What is downloaded; the packages hold the files of one header each."""
    monkeypatch.setenv("KERNEL_MATRIX_CACHE", str(tmp_path / "cache"))
    names: list[str] = []

    def download(_: Suite, packages: tuple[Package, ...], into: Path) -> None:
        for entry in packages:
            names.append(entry.name)
            (into / f"{entry.name}_{entry.version}.deb").touch()

    def unpack_headers(debs: list[Path], tree: Path) -> None:
        assert all(path.is_file() for path in debs)
        (tree / "include").mkdir()

    monkeypatch.setattr(Suite, "download", download)
    monkeypatch.setattr(unpack, "unpack_headers", unpack_headers)
    return names


def test_headers_are_fetched_once(known: manifest.Manifest, offered: Offered, downloads: list[str]) -> None:
    with_headers(offered, "6.1.192-2")
    images.update_lock(known)
    path = headers_of(known, "6.1.192-2", locked_only=True)
    assert path.is_file()
    assert downloads == [HEADERS, COMMON]
    # in the cache they outlive the mirror's copy
    offered["bookworm-security"] = ImageError("the mirror is gone")
    assert headers_of(known, "6.1.192-2") == path
    assert downloads == [HEADERS, COMMON]


def test_headers_are_those_of_the_image_that_boots(
    known: manifest.Manifest, offered: Offered, downloads: list[str]
) -> None:
    """The mirror has replaced the locked kernel, and its headers, by newer ones."""
    with_headers(offered, "6.1.192-2")
    images.update_lock(known)
    with_headers(offered, "6.1.193-1")
    with pytest.raises(ImageError, match=r"^kernel 6\.1: the mirror no longer has the headers of 6\.1\.192-2$"):
        headers_of(known, "6.1.192-2")
    with pytest.raises(ImageError, match=r"^kernel 6\.1: no headers of 6\.1\.193-1 are locked$"):
        headers_of(known, "6.1.193-1", locked_only=True)
    assert downloads == []
    assert headers_of(known, "6.1.193-1").is_file()
    with pytest.raises(ImageError, match=r"^kernel 6\.1: the mirror has no headers of 6\.1\.9-1 "):
        headers_of(known, "6.1.9-1")
