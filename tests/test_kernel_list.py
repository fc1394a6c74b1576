"""What `kernels` says of each kernel and of this machine, and what it clears."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kernel_matrix.commands import kernel_list
from kernel_matrix.config import manifest
from kernel_matrix.images.packages import lock
from kernel_matrix.images.packages.archive import Package
from kernel_matrix.relay import accelerator
from kernel_matrix.relay.saved import snapshots
from kernel_matrix.results import baseline
from kernel_matrix.results.baseline import Expectation
from kernel_matrix.shared import conclusions, marker
from kernel_matrix.shared.conclusions import Conclusion
from kernel_matrix.shared.errors import ToolMissing
from tests.projects import HERE, below

KNOWN = manifest.load(HERE.images)
LATE = "emulated: a probe guest did not boot (not ready after 30 s)"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KERNEL_MATRIX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_kernel_without_lock_or_baseline_says_so(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not cache.exists()
    monkeypatch.setattr(lock, "read", lambda _: lock.Lock({"5.10": (Package("x", "5.10.262-1", "", 1),)}))
    project = below(tmp_path)
    baseline.write(project.matrix_baselines, "5.10", Expectation("", "", ""))
    (kvm := tmp_path / "kvm").touch()
    lines = {line.split()[0]: line for line in kernel_list.lines(project, KNOWN, kvm)}
    assert list(lines) == [kernel.name for kernel in KNOWN.kernels]
    assert lines["5.10"].split() == ["5.10", "core", "debian", "5.10.262-1"]
    assert "not locked: `kernel-matrix kernels update` locks it" in lines["6.1"]
    assert lines["6.1"].endswith("; no baseline")


def remembered(cache: Path) -> None:
    conclusions.remember(cache / "accelerator-0.json", Conclusion("KVM", LATE, works=False, proven=False))
    conclusions.remember(cache / "accelerator-1.json", Conclusion("KVM", LATE, works=False, proven=False))
    snapshots.mark_unusable(cache / "snapshots", "a", "no such capability", kernel="6.1", proven=True)
    snapshots.mark_unusable(cache / "snapshots", "a-variant", "no such capability", kernel="6.1", proven=True)
    snapshots.mark_unusable(cache / "snapshots", "b", "QEMU ended", kernel="6.12", proven=False)
    os.utime(cache / "snapshots" / "b.unusable", (1000, 1000))


def test_what_was_concluded_is_listed_while_it_counts(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, of the machine as it is: the cache has conclusions of other QEMUs, and of guests by command line."""
    remembered(cache)
    monkeypatch.setattr(accelerator, "_machine_key", lambda _: "1")
    (kvm := cache / "kvm").touch()
    lines = [line for line in kernel_list.lines(HERE, KNOWN, kvm) if line.startswith("concluded")]
    assert lines == [
        f"concluded about this machine: KVM: {LATE} (asked again after 6 hours, or with --ask-again)",
        "concluded about this machine: saving 6.1: no such capability (until the machine changes)",
    ]


def test_kvm_is_unknown_before_a_probe(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there is no QEMU; what was concluded with another one is not listed."""
    remembered(cache)
    (kvm := cache / "kvm").touch()
    for known in (True, False):
        monkeypatch.setattr(accelerator, "_qemu_version", (lambda: "QEMU emulator version 1") if known else lacking)
        assert [line for line in kernel_list.lines(HERE, KNOWN, kvm) if "KVM" in line] == []


def lacking() -> str:
    raise ToolMissing("qemu-system-x86_64 is missing")


def test_that_there_is_no_kvm_is_listed(cache: Path) -> None:
    remembered(cache)
    lines = [line for line in kernel_list.lines(HERE, KNOWN, cache / "kvm") if line.startswith("concluded")]
    assert lines == [
        f"concluded about this machine: KVM: emulated: no access to {cache / 'kvm'} (until the machine changes)",
        "concluded about this machine: saving 6.1: no such capability (until the machine changes)",
    ]


def test_prune_clears_what_was_concluded_and_nothing_else(cache: Path) -> None:
    remembered(cache)
    (cache / "accelerator-notes.json").write_text("{}")
    (cache / "snapshots" / "mine").mkdir()
    lines = list(kernel_list.prune(cache))
    assert lines[0].startswith("0 saved guests and 0 unused images deleted; ")
    assert lines[1] == "5 conclusions about this machine forgotten"
    assert lines[2].startswith(f"not deleted, without {marker.NAME}: {cache / 'snapshots' / 'mine'} ")
    assert {path.name for path in cache.rglob("*")} == {"accelerator-notes.json", "snapshots", "mine"}
    assert list(conclusions.held(cache)) == []
    assert list(kernel_list.prune(cache))[1] == "0 conclusions about this machine forgotten"


@pytest.mark.parametrize("age", [-7200.0, conclusions.AGAIN_AFTER])
def test_a_conclusion_of_a_wrong_clock_does_not_last(tmp_path: Path, age: float) -> None:
    path = tmp_path / "x"
    conclusions.remember(path, Conclusion("KVM", "late", works=False, proven=False))
    assert conclusions.recall(path) is not None
    at = path.stat().st_mtime - age
    os.utime(path, (at, at))
    assert conclusions.recall(path) is None
