"""What a saved guest depends on; which accelerator is chosen, and for how long that counts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kernel_matrix.relay import accelerator, client
from kernel_matrix.relay.accelerator import Choice
from kernel_matrix.relay.job import Job
from kernel_matrix.shared import conclusions, wire
from kernel_matrix.vm.boot_spec import Accelerator
from kernel_matrix.vm.ending import End, Ending
from tests.fake_guest import BOOT, JOB


def probe(kind: Accelerator) -> Job:
    return replace(JOB, boot=replace(BOOT, accelerator=kind))


WORKS = Ending("6.1", End.RELEASED, "no more work", "6.1.0", 1.5, 1.0, "")
LATE = Ending("6.1", End.NO_BOOT, "not ready after 30 s", "", 0.0, 0.0, "[    0.0] Linux version 6.1\n")
ENDED = "QEMU ended before the guest was ready"
#: as QEMU 7.2 says it, kvm_init() of accel/kvm/kvm-all.c and accel_init_machine()'s caller in softmmu/vl.c
FORBIDDEN = "qemu-system-x86_64: failed to initialize kvm: Operation not permitted"
NO_DEVICE = "Could not access KVM kernel module: No such device or address"
BUSY = "ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy"

Ask = Callable[..., Choice]


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[Ending | None]:
    """How the next probe boots end, one after another."""
    endings: list[Ending | None] = []

    def boot_once(path: Path, *_: object) -> Ending | None:
        # nothing but KVM is found out about
        assert wire.decode(path.read_bytes(), Job).boot.accelerator is Accelerator.KVM
        return endings.pop(0)

    monkeypatch.setattr(client, "boot_once", boot_once)
    return endings


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Choose on a machine that has a KVM device."""
    monkeypatch.setattr(accelerator, "_machine", lambda: "this machine")
    (tmp_path / "kvm").touch()
    return lambda **more: accelerator.choose(probe, tmp_path / "cache", kvm=tmp_path / "kvm", **more)


def later(folder: Path) -> None:
    """Let what is not proven count no longer."""
    (path,) = (folder / "cache").glob("accelerator-*.json")
    before = time.time() - conclusions.AGAIN_AFTER - 1
    os.utime(path, (before, before))


@pytest.mark.parametrize(
    "ending",
    [
        LATE,
        None,
        Ending("6.1", End.PANIC, "the kernel panicked: x", "", 0.0, 0.0, "Kernel panic"),
        Ending("6.1", End.NO_BOOT, ENDED, "", 0.0, 0.0, "Killed"),
        Ending("6.1", End.NO_BOOT, ENDED, "", 0.0, 0.0, BUSY),
    ],
    ids=["late", "no end", "panic", "killed", "busy"],
)
def test_a_probe_that_failed_in_passing_is_repeated_later(
    tmp_path: Path, probes: list[Ending | None], ask: Ask, ending: Ending | None
) -> None:
    probes += [ending, WORKS]
    assert ask().accelerator is Accelerator.TCG
    again = ask()
    assert again.accelerator is Accelerator.TCG
    assert again.note == "asked again after 6 hours, or with --ask-again"
    later(tmp_path)
    assert ask() == Choice(Accelerator.KVM, "KVM: a probe guest was ready after 1.5 s", proven=True)
    # that it works is not asked again
    later(tmp_path)
    assert ask().accelerator is Accelerator.KVM


def test_a_probe_that_failed_in_passing_is_repeated_when_wanted(probes: list[Ending | None], ask: Ask) -> None:
    probes += [LATE, WORKS]
    assert [ask().accelerator, ask(again=True).accelerator] == [Accelerator.TCG, Accelerator.KVM]


@pytest.mark.parametrize("message", [FORBIDDEN, NO_DEVICE])
def test_what_the_machine_has_proven_stays_until_it_changes(
    tmp_path: Path, probes: list[Ending | None], ask: Ask, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    probes += [Ending("6.1", End.NO_BOOT, ENDED, "", 0.0, 0.0, f"{message}\n"), WORKS]
    first = ask()
    assert first.accelerator is Accelerator.TCG
    assert first.why.endswith(f"({message.removeprefix('qemu-system-x86_64: ').removesuffix(' or address')})")
    later(tmp_path)
    assert ask() == ask(again=True) == first
    # another owner of the device is another machine, as are another kernel, processor and QEMU
    (tmp_path / "kvm").chmod(0o600)
    assert ask().accelerator is Accelerator.KVM
    monkeypatch.setattr(accelerator, "_machine", lambda: "another")
    probes.append(LATE)
    assert ask().accelerator is Accelerator.TCG


def test_a_device_without_permission_is_looked_at_every_time(tmp_path: Path, probes: list[Ending | None]) -> None:
    missing = tmp_path / "kvm"
    for _ in range(2):
        assert accelerator.choose(probe, tmp_path / "cache", kvm=missing).accelerator is Accelerator.TCG
    assert not (tmp_path / "cache").exists()
    missing.touch()
    probes.append(WORKS)
    assert accelerator.choose(probe, tmp_path / "cache", kvm=missing).accelerator is Accelerator.KVM
