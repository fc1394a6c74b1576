"""A CI's caches get another name whenever what they hold would get one, and only then."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from kernel_matrix.vm.guest_spec import Accelerator

from kernel_matrix import images
from kernel_matrix.ci import cache_keys
from kernel_matrix.config import manifest
from kernel_matrix.images import kernels as kernel_images
from kernel_matrix.images import rootfs
from kernel_matrix.plan import preparation
from kernel_matrix.plan.outline import Form, Wishes
from kernel_matrix.relay import accelerator, snapshots
from kernel_matrix.report.run_folder import RunDirectory
from kernel_matrix.shared import wire

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the images are made of, with an empty cache."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "vmimages", folder / "vmimages")
    for name in ("requirements/guest.txt", "harness/kernel_matrix/guest/agent.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in manifest.load(folder / "vmimages").root.project_files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    monkeypatch.setenv("HYPERMESH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(accelerator, "machine", lambda chosen: f"QEMU, {chosen}")
    monkeypatch.setattr(cache_keys, "_KVM", tmp_path / "kvm")
    return folder


def keys(project: Path, *names: str) -> dict[str, str]:
    known = manifest.load(project / "vmimages")
    return cache_keys.keys(known, manifest.select(known, names or ["6.1"]), project)


def fill(project: Path, *names: str, content: str = "0") -> None:
    """Put images into the cache, as far as their names go."""
    known = manifest.load(project / "vmimages")
    root = images.cache_dir() / "roots" / images.root_key(known, project)
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
        (lambda project: (project / "requirements/guest.txt").write_text("pytest==1\n"), {"root"}),
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
    head, found, rest = path.read_text().partition(table)
    assert found
    sha256 = rest.partition('sha256 = "')[2][:64]
    path.write_text(head + found + rest.replace(sha256, "0" * 64, 1))


def test_the_code_that_makes_an_image_is_part_of_its_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(project)
    monkeypatch.setattr(rootfs, "_FORMAT", "next")
    monkeypatch.setattr(kernel_images, "_FORMAT", "next")
    assert all(before[name] != key for name, key in keys(project).items())


def test_the_names_differ_by_kernel_and_the_root_is_shared(project: Path) -> None:
    one, other = keys(project, "6.1"), keys(project, "5.10")
    assert one["root"] == other["root"]
    assert len({each["kernels"] for each in (one, other, keys(project, "core"))}) == 3


def test_a_kernel_without_a_lock_is_named_by_the_manifest(project: Path) -> None:
    (project / "vmimages/kernels.lock.toml").unlink()
    before = keys(project)
    edited(project / "vmimages/kernels.toml", 'suite = "bookworm-security"', 'suite = "bookworm"')
    assert keys(project)["kernels"] != before["kernels"]


def test_saved_guests_have_a_name_when_all_their_images_are_there(project: Path) -> None:
    fill(project, "6.1")
    assert "snapshots" in keys(project, "6.1")
    assert "snapshots" not in keys(project, "6.1", "5.10")


def test_saved_guests_are_named_by_images_machine_and_command_line(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    """What is left out of a spec here is no part of a snapshot's name."""
    fill(project)
    known = manifest.load(project / "vmimages")
    kernel = manifest.select(known, ["6.1"])[0]
    root, image = images.cached_root(known, project), images.cached_kernel(known, kernel)
    assert root is not None
    assert image is not None
    (tmp_path / "run").mkdir()
    run = RunDirectory(tmp_path / "run")
    wishes = Wishes(("6.1",), arguments=(), guests=None, locked=False, silence=None)
    ours = {spec.kernel: snapshots.key(spec, "m") for spec in cache_keys._guests(known, kernel, project)}
    for name, append in [("6.1", ()), *[(each.of(kernel), each.append) for each in known.variants]]:
        guest = preparation._Guest(Form(name, frozenset(), append), image)
        spec = preparation._spec(guest, root, root=project, run=run, wishes=wishes)
        theirs = preparation._completed(spec, Accelerator.TCG, (), wishes, "m")
        if name in ours:
            assert theirs.snapshot == (images.cache_dir() / "snapshots", ours.pop(name))
    assert ours == {}
