"""The plain way to run a suite on a kernel, for comparison in `bench`: one virtme-ng, one pytest in it.

Image, tests, kernel, memory and emulator are the same. The project is a 9p share, as is usual with virtme-ng.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import kernel_matrix
from kernel_matrix.plan.preparation import Plan
from kernel_matrix.relay.job import Job
from kernel_matrix.shared.channel import worker_input
from kernel_matrix.shared.channel.console import START_MARK
from kernel_matrix.shared.errors import HarnessError
from kernel_matrix.shared.outcomes.features import GuestFacts
from kernel_matrix.shared.project import HOME, ROOT_VARIABLE
from kernel_matrix.vm import boot_spec
from kernel_matrix.vm.process_guard import GuardedGroup, cpu_seconds

#: what the guest's plugin writes to the console when a test starts
_FIRST_TEST = START_MARK.encode()
#: pytest's last line, with and without -q
_SUMMARY = re.compile(r"\d+ (passed|failed|skipped|errors?|deselected)\b.* in \d")
#: in that line: a test that is red
_RED = re.compile(r"\d+ (failed|errors?|xpassed)\b")
#: seconds after which a run has failed: before its first test, and in all
_LIMIT_TO_START = 300.0
_LIMIT = 3600.0
#: where the guest finds the engine
_ENGINE = "/opt"
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
    loaders = dict.fromkeys(plan.guests[0].loaders, "") if plan.guests else {}
    facts = GuestFacts(
        kernel,
        plan.all_kernels[kernel],
        plan.all_features,
        plan.all_kernels,
        plan.programs,
        loaders,
        plan.all_loaders,
        plan.sources,
    )
    pytest = [
        "python3",
        "-m",
        "pytest",
        "-p",
        "kernel_matrix.commands.bench.alone",
        "-p",
        "no:cacheprovider",
        "--color=no",
        *arguments,
    ]
    environment = f"HARNESS_SPEED=20 HARNESS_FACTS={shlex.quote(worker_input.encode_facts(facts))}"
    return f"cd {HOME} && PYTHONPATH={_ENGINE} {ROOT_VARIABLE}={HOME} {environment} exec {shlex.join(pytest)}\n"


def command(job: Job, scripts: Path) -> list[str]:
    """Build the command that boots the kernel and runs the script ``run`` of that folder in it. Pure."""
    options = [
        *boot_spec.emulation_options(job.boot),
        *("-drive", f"if=none,id=modules,file={boot_spec.qemu_value(job.boot.modules)},format=raw,readonly=on"),
        *("-device", "virtio-blk-pci,drive=modules"),
    ]
    return [
        *(str(job.vng), "--verbose", "--disable-microvm", "--force-9p"),
        *(["--disable-kvm"] if job.boot.accelerator is boot_spec.Accelerator.TCG else []),
        *(
            "--root-disk",
            str(job.boot.root),
            "--root-fstype",
            "erofs",
            "--run",
            str(job.boot.vmlinuz),
            "--user",
            "root",
        ),
        *(word for option in job.boot.append for word in ("--append", option)),
        *("--cpus", str(job.boot.cpus), "--memory", f"{job.boot.memory_mib}M", f"--rodir={HOME}={job.payload.root}"),
        f"--rodir={_ENGINE}={Path(kernel_matrix.__file__).parents[1]}",
        *(f"--rodir={_SCRIPTS}={scripts}", f"--qemu-opts={shlex.join(options)}", "--", f"sh {_SCRIPTS}/run"),
    ]


def run(job: Job, plan: Plan, arguments: Sequence[str]) -> PlainRun:
    """Run the suite; raises HarnessError when no test starts, the run does not end, or a test is red."""
    with tempfile.TemporaryDirectory(prefix="harness-") as name:
        console = Path(name) / "console"
        environment = {**os.environ, "TMPDIR": name}
        environment["PATH"] = f"{job.vng.parent}:{environment.get('PATH', '')}:/usr/sbin:/sbin"
        scripts = Path(name) / "scripts"
        scripts.mkdir()
        (scripts / "run").write_text(script(job.kernel, plan, arguments))
        began = time.monotonic()
        group = GuardedGroup(command(job, scripts), output=console, environment=environment)
        first: tuple[float, float] | None = None
        cpu = 0.0
        try:
            while not group.ended():
                select.select([], [], [], 0.02 if first is None else 0.2)
                limit = _LIMIT_TO_START if first is None else _LIMIT
                if time.monotonic() - began > limit:
                    raise HarnessError(f"kernel {job.kernel}: the plain way has not ended after {limit:.0f} s")
                # the processes are gone when it has ended
                cpu = max(cpu, cpu_seconds(group.process.pid))
                if first is None and _FIRST_TEST in console.read_bytes():
                    first = (time.monotonic() - began, cpu)
            total = time.monotonic() - began
        finally:
            group.kill()
        lines = console.read_text(errors="replace").splitlines()
        if first is None:
            raise HarnessError(f"kernel {job.kernel}: no test started the plain way: {' | '.join(lines[-5:])}")
        return PlainRun(first[0], first[1], total, cpu, green_summary(job.kernel, lines))


def green_summary(kernel: str, lines: Sequence[str]) -> str:
    """Return pytest's last line on a console; raises HarnessError when there is none, or it counts a red test."""
    summary = next((line.strip("= ") for line in reversed(lines) if _SUMMARY.search(line)), "pytest did not end")
    if not _SUMMARY.search(summary) or _RED.search(summary):
        raise HarnessError(f"kernel {kernel}: the plain way is broken: {summary}; {' | '.join(lines[-5:])}")
    return summary
