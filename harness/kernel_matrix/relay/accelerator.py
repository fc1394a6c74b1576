"""Choose the accelerator of the guests by booting one; /dev/kvm alone proves nothing.

/dev/kvm may exist, open and create VMs, and still boot no kernel (nested virtualisation in software). So one guest
is booted with KVM, within a time limit, once per machine. When it boots, or the machine itself refuses KVM, the
conclusion is valid until the host's kernel, processor, QEMU, /dev/kvm or the user's groups change. When it does not
boot for another reason, the conclusion is valid only for a while (`kernel_matrix.shared.conclusions`).
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from filelock import FileLock

from kernel_matrix.arch import CURRENT
from kernel_matrix.relay import client
from kernel_matrix.relay.job import Job
from kernel_matrix.shared import conclusions, hints, wire
from kernel_matrix.shared.conclusions import Conclusion
from kernel_matrix.shared.errors import ToolMissing
from kernel_matrix.vm import slots
from kernel_matrix.vm.boot_spec import Accelerator

KVM = Path("/dev/kvm")
#: a guest with working KVM is ready within two or three seconds
_LIMIT = 30.0
#: seconds added to the boot's limit, for the start and the end of the relay
_GRACE = 30.0
#: QEMU's message when the kernel permanently refuses it a VM (accel/kvm/kvm-all.c, kvm_init())
_REFUSED = re.compile(
    r"(Could not access KVM kernel module|failed to initialize kvm|ioctl\(KVM_CREATE_VM\) failed): .*"
    r"(Permission denied|Operation not permitted|No such file or directory|No such device|not supported)"
)


@dataclass(frozen=True, slots=True)
class Choice:
    """The accelerator and the reason for it, a sentence."""

    accelerator: Accelerator
    why: str
    #: whether the machine itself has given the answer
    proven: bool = False
    #: how long an earlier conclusion without proof is valid
    note: str = ""


def forbidden(kvm: Path = KVM) -> Choice | None:
    """Return emulation when the device is missing or not accessible; every run checks this again."""
    if os.access(kvm, os.R_OK | os.W_OK):
        return None
    return Choice(Accelerator.TCG, f"emulated: no access to {kvm}", proven=True)


def concluded(cache: Path, kvm: Path = KVM) -> Conclusion | None:
    """Return what is known of KVM on this machine as it is now; None before a probe, or without QEMU."""
    if (choice := forbidden(kvm)) is not None:
        return Conclusion(conclusions.KVM, choice.why, works=False, proven=True)
    try:
        return conclusions.recall(_conclusion(cache, kvm))
    except ToolMissing:
        return None


def choose(probe: Callable[[Accelerator], Job], cache: Path, *, kvm: Path = KVM, again: bool = False) -> Choice:
    """Return the accelerator for this machine; ``probe`` returns the job of the guest to boot as a probe.

    ``again``: discard the conclusion of an earlier probe unless it is proven.
    """
    if (choice := forbidden(kvm)) is not None:
        return choice
    cache.mkdir(parents=True, exist_ok=True)
    path = _conclusion(cache, kvm)
    with FileLock(path.with_suffix(".lock")):
        if again:
            conclusions.ask_again(path)
        if (conclusion := conclusions.recall(path)) is not None:
            chosen = Accelerator.KVM if conclusion.works else Accelerator.TCG
            return Choice(chosen, conclusion.why, conclusion.proven, "" if conclusion.proven else conclusions.LATER)
        choice = _probe(probe)
        works = choice.accelerator is Accelerator.KVM
        conclusions.remember(path, Conclusion(conclusions.KVM, choice.why, works=works, proven=choice.proven))
        return choice


def _probe(probe: Callable[[Accelerator], Job]) -> Choice:
    with tempfile.TemporaryDirectory(prefix="harness-kvm-") as name:
        folder = Path(name)
        job = replace(
            probe(Accelerator.KVM), console=folder / "console", slots=slots.make(folder, 1), boot_timeout=_LIMIT
        )
        wire.write(folder / "job.json", job)
        seconds = job.boot_timeout + _GRACE
        ending = client.boot_once(folder / "job.json", folder / "ending.json", job.payload.root, seconds)
    if ending is not None and ending.release:
        return Choice(Accelerator.KVM, f"KVM: a probe guest was ready after {ending.boot_seconds:.1f} s", proven=True)
    refused = None if ending is None else _REFUSED.search(ending.console)
    reason = refused[0].strip() if refused else "the probe did not end in time" if ending is None else ending.reason
    why = f"emulated: /dev/kvm is there, but a probe guest did not boot with it ({reason})"
    return Choice(Accelerator.TCG, why, proven=refused is not None)


def machine(accelerator: Accelerator) -> str:
    """Describe what a guest's saved state depends on: QEMU, and the host's kernel and processor.

    Of the host, an emulated guest sees only the rate of the processor's counter: QEMU 7.2, cpu_get_tsc(), passes it on.
    """
    if accelerator is Accelerator.KVM:
        return _machine()
    return f"{_qemu_version()}\0{CURRENT.counter_rate(_cpuinfo())}"


def _conclusion(cache: Path, kvm: Path) -> Path:
    """Return the file of the conclusion; the cache also has those of this machine with another QEMU or user."""
    return cache / f"accelerator-{_machine_key(kvm)}.json"


def _machine_key(kvm: Path) -> str:
    """Return a digest of what the conclusion depends on: the machine, the device, and the user."""
    device = kvm.stat()
    access = (device.st_rdev, device.st_mode, device.st_uid, device.st_gid, os.geteuid(), *sorted(os.getgroups()))
    return hashlib.sha256(f"{_machine()}\0{access}".encode()).hexdigest()[:16]


def _machine() -> str:
    return f"{platform.release()}\0{CURRENT.processor(_cpuinfo())}\0{_qemu_version()}"


def _cpuinfo() -> str:
    return Path("/proc/cpuinfo").read_text()


def _qemu_version() -> str:
    qemu = shutil.which(CURRENT.qemu)
    if qemu is None:
        raise ToolMissing(f"{CURRENT.qemu} is missing: run `{hints.command('bootstrap')}`")
    return _version(qemu)


@cache
def _version(program: str) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
