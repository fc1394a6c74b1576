"""Which accelerator runs the guests: found by booting one, never by looking at /dev/kvm.

/dev/kvm may exist, open and create VMs, and still boot no kernel (nested virtualisation in software). So one guest
is booted with KVM, within a limit, once per machine; the answer is remembered until the host's kernel, processor or
QEMU changes.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from filelock import FileLock

from harness import slots, wire
from harness.ending import Ending
from harness.errors import ToolMissing
from harness.vm import Accelerator, GuestSpec

#: a guest with working KVM is ready within two or three seconds
_LIMIT = 30.0
#: on top of the boot's own limit: the relay's start and end
_GRACE = 30.0


@dataclass(frozen=True, slots=True)
class Choice:
    """The accelerator and the sentence that says why."""

    accelerator: Accelerator
    why: str


def choose(probe: GuestSpec, cache: Path, *, kvm: Path = Path("/dev/kvm")) -> Choice:
    """Return the accelerator for this machine; ``probe`` is a guest that may be booted to find out."""
    if not os.access(kvm, os.R_OK | os.W_OK):
        return Choice(Accelerator.TCG, f"emulated: no access to {kvm}")
    cache.mkdir(parents=True, exist_ok=True)
    remembered = cache / f"accelerator-{_machine_key()}.json"
    with FileLock(remembered.with_suffix(".lock")):
        try:
            return wire.decode(remembered.read_bytes(), Choice)
        except (FileNotFoundError, msgspec.MsgspecError):
            choice = _probe(probe)
            wire.write(remembered, choice)
            return choice


def _probe(probe: GuestSpec) -> Choice:
    with tempfile.TemporaryDirectory(prefix="harness-kvm-") as name:
        folder = Path(name)
        spec = replace(
            probe,
            accelerator=Accelerator.KVM,
            console=folder / "console",
            slots=slots.make(folder, 1),
            boot_timeout=_LIMIT,
        )
        ending = boot_once(spec, folder)
    if ending is not None and ending.release:
        return Choice(Accelerator.KVM, f"KVM: a probe guest was ready after {ending.boot_seconds:.1f} s")
    reason = "the probe ended" if ending is None else ending.reason
    return Choice(Accelerator.TCG, f"emulated: /dev/kvm is there, but a probe guest did not boot with it ({reason})")


def boot_once(spec: GuestSpec, folder: Path) -> Ending | None:
    """Boot a guest through its relay, let it go as soon as it answers; None when the relay did not end in time."""
    wire.write(folder / "spec.json", spec)
    relay = subprocess.Popen(
        [sys.executable, "-m", "harness.relay", str(folder / "spec.json"), str(folder / "ending.json")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=spec.project,
    )
    assert relay.stdin is not None
    assert relay.stdout is not None
    try:
        relay.stdin.write(b"'import sys; sys.stdout.write(\"1\"); sys.stdout.flush()'\n")
        relay.stdin.flush()
        relay.stdout.read(1)  # the relay's own answer; the guest's is swallowed and its end ends the relay
        relay.wait(timeout=spec.boot_timeout + _GRACE)
    except subprocess.TimeoutExpired:
        relay.send_signal(signal.SIGKILL)
        relay.wait()
        return None
    finally:
        relay.stdin.close()
        relay.stdout.close()
    return wire.decode((folder / "ending.json").read_bytes(), Ending)


def machine(accelerator: Accelerator) -> str:
    """Describe what a guest's saved state depends on: QEMU, and the host's kernel and processor.

    Of those an emulated guest sees only how fast the processor's counter runs: QEMU 7.2, cpu_get_tsc(), hands it on.
    """
    if accelerator is Accelerator.KVM:
        return _machine()
    return f"{_qemu_version()}\0{counter_rate(Path('/proc/cpuinfo').read_text())}"


def counter_rate(cpuinfo: str) -> str:
    """Return in three digits how fast the processor's counter (x86: TSC) runs, empty when it is not said.

    Linux makes BogoMIPS of it where it has one (arch/x86/kernel/tsc.c, lpj_fine): 2 for each MHz there.
    """
    found = re.search(r"^bogomips\s*:\s*([\d.]+)$", cpuinfo, re.IGNORECASE | re.MULTILINE)
    return f"{float(found[1]):.3g}" if found else ""


def _machine_key() -> str:
    return hashlib.sha256(_machine().encode()).hexdigest()[:16]


def _machine() -> str:
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    return f"{platform.release()}\0{cpu}\0{_qemu_version()}"


def _qemu_version() -> str:
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        raise ToolMissing("qemu-system-x86_64 is missing: run `nox -s bootstrap`")
    return subprocess.run([qemu, "--version"], capture_output=True, text=True, check=True).stdout
