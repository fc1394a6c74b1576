"""A provider that the engine does not know: a module beside kernels.toml, and its name in a kernel's table."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from kernel_matrix import images
from kernel_matrix.config.manifest import Kernel, Manifest
from kernel_matrix.config.project import DEFAULT_IMAGES
from kernel_matrix.shared.errors import ImageError, ManifestError

PROVIDER = Path(__file__).with_name("deb_folder.py")
RELEASE = "6.18.0-mine"
TABLE = '\n[kernel."mine"]\ntier = "core"\nprovider = "our_debs:DebFolder"\npath = "debs"\n'


def deb(folder: Path, name: str, **files: str) -> None:
    """Write a package with these files; in their names two underscores are a slash."""
    tree = folder / f"{name}.tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: me <me@here>\nDescription: a kernel\n"
    )
    for path, content in files.items():
        (target := tree / path.replace("__", "/").format(RELEASE)).parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    subprocess.run(["dpkg-deb", "--build", str(tree), str(folder / f"{name}.deb")], check=True, capture_output=True)
    shutil.rmtree(tree)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's images, with one more kernel, the provider and two packages."""
    monkeypatch.setenv("KERNEL_MATRIX_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "images"
    shutil.copytree(DEFAULT_IMAGES, folder)
    # by another name: pytest can import it by its own from here
    shutil.copy(PROVIDER, folder / "our_debs.py")
    with (folder / "kernels.toml").open("a") as file:
        file.write(TABLE)
    (folder / "debs").mkdir()
    kernel = {f"boot__vmlinuz-{RELEASE}": "kernel", f"boot__config-{RELEASE}": "CONFIG_BPF=y"}
    deb(folder / "debs", "linux-image-mine", **kernel)
    modules = {f"lib__modules__{RELEASE}__modules.{name}": "" for name in ("builtin", "order")}
    deb(folder / "debs", "linux-modules-mine", **modules)
    return folder


def mine(folder: Path) -> tuple[Manifest, Kernel]:
    known = images.load(folder)
    return known, next(kernel for kernel in known.kernels if kernel.name == "mine")


def test_a_kernel_of_a_provider_outside_the_engine_is_made_once(folder: Path) -> None:
    known, kernel = mine(folder)
    assert images.cached_kernel(known, kernel) is None
    image = images.kernel_image(known, kernel)
    assert (image.name, image.release, image.version) == ("mine", RELEASE, "debs")
    assert image.vmlinuz.read_text() == "kernel"
    assert image.config.read_text() == "CONFIG_BPF=y"
    assert image.modules.stat().st_size > 0
    assert images.cached_kernel(known, kernel) == image
    assert image.vmlinuz.parents[1].name == images.kernel_key(known, kernel)
    # the same packages: nothing is made again
    made = image.vmlinuz.stat().st_mtime_ns
    assert images.kernel_image(known, kernel, locked_only=True).vmlinuz.stat().st_mtime_ns == made


def test_other_packages_are_another_image(folder: Path) -> None:
    known, kernel = mine(folder)
    before = images.kernel_key(known, kernel)
    deb(folder / "debs", "linux-more-mine")
    assert images.kernel_key(known, kernel) != before


def test_it_is_neither_locked_nor_missed_in_the_lock(folder: Path) -> None:
    known, kernel = mine(folder)
    assert images.kernel_version(known, kernel) == "debs"
    assert images.unlocked(known, [kernel]) == ()


def test_its_failure_is_one_line(folder: Path) -> None:
    known, kernel = mine(folder)
    shutil.rmtree(folder / "debs")
    with pytest.raises(ImageError, match=r"^kernel mine: no package in \S+/debs$"):
        images.kernel_image(known, kernel)


def test_its_keys_are_checked_with_the_manifest(folder: Path) -> None:
    text = (folder / "kernels.toml").read_text()
    (folder / "kernels.toml").write_text(text.replace('path = "debs"', 'folder = "debs"'))
    with pytest.raises(ManifestError, match=r"unknown field `folder` \(.*; of provider our_debs:DebFolder: path\)$"):
        images.load(folder)


def test_it_is_short() -> None:
    assert len(PROVIDER.read_text().splitlines()) < 60
