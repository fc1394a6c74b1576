"""A CI's caches get another name whenever what they hold would get one, and only then."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel_matrix import images
from kernel_matrix.ci import cache_keys
from kernel_matrix.config import manifest
from kernel_matrix.images import image as kernel_images
from kernel_matrix.images import rootfs
from kernel_matrix.plan import preparation, provisioning
from kernel_matrix.plan.guest_list import ListedGuest, RunRequest
from kernel_matrix.relay import accelerator
from kernel_matrix.relay.saved import snapshots
from kernel_matrix.report.run_folder import RunDirectory
from kernel_matrix.shared import wire
from kernel_matrix.vm.boot_spec import Accelerator
from tests.projects import HERE, below


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the images are made of, with an empty cache."""
    folder = tmp_path / "project"
    shutil.copytree(HERE.images, folder / "vmimages")
    monkeypatch.setenv("KERNEL_MATRIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(accelerator, "machine", lambda chosen: f"QEMU, {chosen}")
    monkeypatch.setattr(cache_keys, "_KVM", tmp_path / "kvm")
    return folder


def keys(project: Path, *names: str) -> dict[str, str]:
    known = manifest.load(project / "vmimages")
    return cache_keys.keys(known, manifest.select(known, names or ["6.1"]))


def fill(project: Path, *names: str, content: str = "0") -> None:
    """Put images into the cache, as far as their names go."""
    known = manifest.load(project / "vmimages")
    root = images.cache_dir() / "roots" / images.root_key(known)
    root.mkdir(parents=True, exist_ok=True)
    for old in root.glob("*"):
        old.unlink()
    (root / f"root-{content}.erofs").touch()
    for kernel in manifest.select(known, names or ["6.1"]):
        folder = images.cache_dir() / "kernels" / images.kernel_key(known, kernel)
        folder.mkdir(parents=True, exist_ok=True)
        nothing = Path()
        image = images.KernelImage(kernel.name, f"{kernel.name}.0", "1", nothing, nothing, nothing)
        wire.write(folder / "image.json", image)


def edited(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        (lambda project: (project / "vmimages/requirements.txt").write_text("pytest==1\n"), {"root"}),
        (lambda project: (project / "vmimages/mount.9p").write_text("#!/bin/sh\n"), {"root"}),
        (lambda project: edited(project / "vmimages/rootfs.toml", 'suite = "', 'suite = "x'), {"root"}),
        (
            lambda project: edited(project / "vmimages/rootfs.toml", "\nmodules = [", '\nmodules = ["x",'),
            {"root", "kernels"},
        ),
        (lambda project: _lock(project, "6.1"), {"kernels"}),
        (lambda project: _lock(project, "5.10"), set()),
        (lambda project: edited(project / "vmimages/kernels.toml", '    "ringbuf",', "    "), set()),
    ],
    ids=["python packages", "file of the image", "rootfs.toml", "modules", "own lock", "another's lock", "features"],
)
def test_a_change_changes_the_names_of_what_it_is_part_of(
    project: Path, change: Callable[[Path], object], changed: set[str]
) -> None:
    before = keys(project)
    change(project)
    after = keys(project)
    assert set(before) == set(after) == {"root", "kernels"}
    assert {name for name in before if before[name] != after[name]} == changed


def _lock(project: Path, kernel: str) -> None:
    path = project / "vmimages/kernels.lock.toml"
    table = f'[[kernel."{kernel}"]]'
    head, separator, rest = path.read_text().partition(table)
    assert separator
    sha256 = rest.partition('sha256 = "')[2][:64]
    path.write_text(head + separator + rest.replace(sha256, "0" * 64, 1))


def test_the_code_that_makes_an_image_is_part_of_its_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(project)
    monkeypatch.setattr(rootfs, "_FORMAT", "next")
    monkeypatch.setattr(kernel_images, "_FORMAT", "next")
    assert all(before[name] != key for name, key in keys(project).items())


def test_the_guests_agent_is_part_of_the_roots_name(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys(project)
    (tmp_path / "agent.py").write_bytes(rootfs._AGENT.read_bytes() + b"# edited\n")
    monkeypatch.setattr(rootfs, "_AGENT", tmp_path / "agent.py")
    after = keys(project)
    assert {name for name in before if before[name] != after[name]} == {"root"}


def test_the_names_differ_by_kernel_and_the_root_is_shared(project: Path) -> None:
    one, other = keys(project, "6.1"), keys(project, "5.10")
    assert one["root"] == other["root"]
    assert len({names["kernels"] for names in (one, other, keys(project, "core"))}) == 3


def test_a_kernel_without_a_lock_is_named_by_the_manifest(project: Path) -> None:
    (project / "vmimages/kernels.lock.toml").unlink()
    before = keys(project)
    edited(project / "vmimages/kernels.toml", 'suite = "bookworm-security"', 'suite = "bookworm"')
    assert keys(project)["kernels"] != before["kernels"]


def test_saved_guests_have_a_key_once_all_images_exist(project: Path) -> None:
    fill(project, "6.1")
    assert "snapshots" in keys(project, "6.1")
    assert "snapshots" not in keys(project, "6.1", "5.10")


def test_the_key_has_the_images_machine_and_command_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache key of the saved guests depends on the images, the machine and the kernel's command line."""
    fill(project)
    names = [keys(project)["snapshots"]]
    fill(project, content="1")  # the same packages' next security update
    names.append(keys(project)["snapshots"])
    edited(project / "vmimages/variants.toml", "lockdown=integrity", "lockdown=integrity quiet")
    names.append(keys(project)["snapshots"])
    monkeypatch.setattr(accelerator, "machine", lambda _: "the next QEMU")
    names.append(keys(project)["snapshots"])
    cache_keys._KVM.touch()
    names.append(keys(project)["snapshots"])
    assert len(set(names)) == len(names)


def test_saved_guests_are_those_that_a_run_saves(project: Path, tmp_path: Path) -> None:
    """Of the same kernel image, with each command line that changes it, in the manifest's order."""
    fill(project)
    known = manifest.load(project / "vmimages")
    kernel = manifest.select(known, ["6.1"])[0]
    root, image = images.cached_root(known), images.cached_kernel(known, kernel)
    assert root is not None
    assert image is not None
    (tmp_path / "run").mkdir()
    request = RunRequest(("6.1",), arguments=(), guests=None, locked=False, silence=None)
    jobs = preparation._Jobs(below(project), root, RunDirectory(tmp_path / "run"), request)
    changing = [(variant.of(kernel), variant.append) for variant in known.variants if variant.changes(kernel)]
    assert changing
    theirs = [
        jobs.of(provisioning.Guest(ListedGuest(name, frozenset(), append), image), Accelerator.TCG, (), "m").snapshot
        for name, append in [("6.1", ()), *changing]
    ]
    ours = [snapshots.key(spec, "m") for spec in cache_keys._guests(known, kernel)]
    assert theirs == [(images.cache_dir() / "snapshots", key) for key in ours]
