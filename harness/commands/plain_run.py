"""The plain way to run a suite on a kernel, which `harness bench` measures against: one virtme-ng, one pytest in it.

On the same image, with the same tests, kernel, memory and emulator. The project is a 9p share, as users do.
"""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.plan.preparation import Plan
from harness.shared.errors import HarnessError
from harness.vm import guest_spec
from harness.vm.process_guard import GuardedGroup, cpu_seconds

#: what the guest's plugin writes to the console when a test starts
_FIRST_TEST = b"harness: start "
#: pytest's last line, with and without -q
_SUMMARY = re.compile(r"\d+ (passed|failed|skipped|errors?|deselected)\b.* in \d")
#: what that line has when a run is broken
_RED = re.compile(r"\d+ (failed|errors?|xpassed)\b")
#: seconds after which a run has failed: without a first test, and at all
_LIMIT_TO_START = 300.0
_LIMIT = 3600.0
#: where the guest finds the script that it runs: its command line has no room for one
_SCRIPTS = "/mnt"


@dataclass(frozen=True, slots=True)
class PlainRun:
    """Seconds from QEMU's start, and CPU seconds of virtme-ng and QEMU by then."""

    first_test: float
    first_test_cpu: float
    total: float
    total_cpu: float
    #: pytest's last line
    summary: str


def script(kernel: str, plan: Plan, arguments: Sequence[str]) -> str:
    """Return the shell script that runs pytest with these arguments in the guest. Pure."""
    facts = {
        "kernel": kernel,
        "kernels": {name: sorted(features) for name, features in plan.all_kernels.items()},
        "all_features": sorted(plan.all_features),
    }
    pytest = [
        "python3",
        "-m",
        "pytest",
        "-p",
        "harness.guest.pytest.alone",
        "-p",
        "no:cacheprovider",
        "--color=no",
        *arguments,
    ]
    environment = f"HARNESS_SPEED=20 HARNESS_FACTS={shlex.quote(json.dumps(facts))}"
    return f"cd /harness && {environment} exec {shlex.join(pytest)}\n"


def command(spec: guest_spec.GuestSpec, scripts: Path) -> list[str]:
    """Build the command that boots the kernel and runs the script ``run`` of that folder in it. Pure."""
    options = [
        *guest_spec.emulation_options(spec),
        *("-drive", f"if=none,id=modules,file={guest_spec.qemu_value(spec.modules)},format=raw,readonly=on"),
        *("-device", "virtio-blk-pci,drive=modules"),
    ]
    return [
        *(str(spec.vng), "--verbose", "--disable-microvm", "--force-9p"),
        *(["--disable-kvm"] if spec.accelerator is guest_spec.Accelerator.TCG else []),
        *("--root-disk", str(spec.root), "--root-fstype", "erofs", "--run", str(spec.vmlinuz), "--user", "root"),
        *(word for each in spec.append for word in ("--append", each)),
        *("--cpus", str(spec.cpus), "--memory", f"{spec.memory_mib}M", f"--rodir=/harness={spec.project}"),
        *(f"--rodir={_SCRIPTS}={scripts}", f"--qemu-opts={shlex.join(options)}", "--", f"sh {_SCRIPTS}/run"),
    ]


def run(spec: guest_spec.GuestSpec, plan: Plan, arguments: Sequence[str]) -> PlainRun:
    """Run it to its end; raises HarnessError when no test starts, it does not end, or not green."""
    with tempfile.TemporaryDirectory(prefix="harness-") as name:
        console = Path(name) / "console"
        environment = {**os.environ, "TMPDIR": name}
        environment["PATH"] = f"{spec.vng.parent}:{environment.get('PATH', '')}:/usr/sbin:/sbin"
        scripts = Path(name) / "scripts"
        scripts.mkdir()
        (scripts / "run").write_text(script(spec.kernel, plan, arguments))
        began = time.monotonic()
        group = GuardedGroup(command(spec, scripts), output=console, environment=environment)
        first: tuple[float, float] | None = None
        cpu = 0.0
        try:
            while not group.ended():
                select.select([], [], [], 0.02 if first is None else 0.2)
                limit = _LIMIT_TO_START if first is None else _LIMIT
                if time.monotonic() - began > limit:
                    raise HarnessError(f"kernel {spec.kernel}: the plain way has not ended after {limit:.0f} s")
                # the processes are gone when it has ended
                cpu = max(cpu, cpu_seconds(group.process.pid))
                if first is None and _FIRST_TEST in console.read_bytes():
                    first = (time.monotonic() - began, cpu)
            total = time.monotonic() - began
        finally:
            group.kill()
        lines = console.read_text(errors="replace").splitlines()
        if first is None:
            raise HarnessError(f"kernel {spec.kernel}: no test started the plain way: {' | '.join(lines[-5:])}")
        return PlainRun(first[0], first[1], total, cpu, ended_green(spec.kernel, lines))


def ended_green(kernel: str, lines: Sequence[str]) -> str:
    """Return pytest's last line on a console; raises HarnessError when there is none, or it tells of anything red."""
    summary = next((line.strip("= ") for line in reversed(lines) if _SUMMARY.search(line)), "pytest did not end")
    if not _SUMMARY.search(summary) or _RED.search(summary):
        raise HarnessError(f"kernel {kernel}: the plain way is broken: {summary}; {' | '.join(lines[-5:])}")
    return summary
