"""The command ``shell``: a command, or an interactive shell, as root in a guest."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kernel_matrix.commands.in_guests import terminal
from kernel_matrix.commands.in_guests.terminal import GuestGone
from kernel_matrix.config import manifest
from kernel_matrix.plan import preparation
from kernel_matrix.plan.guest_list import RunRequest, arguments_without_tests
from kernel_matrix.plan.preparation import PlannedGuest
from kernel_matrix.relay import client
from kernel_matrix.relay.job import Job
from kernel_matrix.report import run_folder as results
from kernel_matrix.shared import wire
from kernel_matrix.shared.channel import console, frames
from kernel_matrix.shared.errors import HarnessError, ManifestError
from kernel_matrix.shared.project import Project
from kernel_matrix.vm import debugging
from kernel_matrix.vm.ending import Ending

#: what the agent runs instead of execnet's worker; to the relay it is a bootstrap line
_BOOTSTRAP = "from kernel_matrix.guest.system.upkeep import terminal; terminal.main()"
#: seconds without a heartbeat, which the guest sends every second, after which it counts as hung
_SILENCE = 60.0


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the guest."""

    carried: Path | None = None
    results: Path | None = None
    manifest: Path | None = None
    cold: bool = False
    #: let a debugger connect to its kernel
    gdb: bool = False


def run(project: Project, kernel: str, command: Sequence[str], options: Options) -> int:
    """Run a command in a guest of that kernel and return its exit status; raises HarnessError."""
    kernel_manifest = manifest.load(options.manifest or project.images)
    if kernel not in kernel_manifest.guests:
        raise ManifestError(
            f"unknown kernel {kernel!r} (known: {', '.join(known.name for known in kernel_manifest.kernels)})"
        )
    record = results.RunDirectory.create((options.results or project.results) / "shell")
    request = RunRequest(
        (kernel,),
        arguments=arguments_without_tests(project, [kernel]),
        guests=1,
        locked=False,
        silence=debugging.PATIENCE if options.gdb else _SILENCE,
        manifest=options.manifest,
        cold=options.cold,
        worker="again",
        worker_kind="shell",
        carried=options.carried,
    )
    plan = preparation.prepare(project, request, record, say=lambda _: None)
    guest = plan.guests[0]

    def ready() -> None:
        if options.gdb:
            job = wire.decode(guest.job_path.read_bytes(), Job)
            command = debugging.gdb(job.boot, debugging.started(plan.folder, kernel).folder)
            print(f"debug its kernel: {command}", file=sys.stderr, flush=True)

    return _in_guest(project.root, guest, command, record.console(kernel), ready)


def _in_guest(root: Path, guest: PlannedGuest, command: Sequence[str], log: Path, ready: Callable[[], None]) -> int:
    try:
        with client.started(guest.relay(), _BOOTSTRAP, root) as relay:
            relay.sending.write(frames.PREAMBLE)
            _read_answer(relay.receiving)
            return terminal.run_command(relay.receiving.fileno(), relay.sending.fileno(), command, ready)
    except (GuestGone, BrokenPipeError):
        raise HarnessError(_how_it_ended(guest, log)) from None


def _read_answer(stream: IO[bytes]) -> None:
    left = len(frames.ANSWER)
    while left:
        if not (data := stream.read(left)):
            raise GuestGone
        left -= len(data)


def _how_it_ended(guest: PlannedGuest, log: Path) -> str:
    try:
        ending = wire.decode(guest.ending_path.read_bytes(), Ending)
    except FileNotFoundError as error:
        return f"{guest.kernel}: its relay was killed ({error}); console: {log}"
    return f"{ending.describe()}; console: {log}\n{console.excerpt(ending.console)}"


def enter(name: str, command: Sequence[str]) -> int:
    """Run a command in a guest that a run keeps; raises HarnessError."""
    for path in debugging.enter_sockets(name):
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):  # the guest has ended
                continue
            try:
                return terminal.run_command(connection.fileno(), connection.fileno(), command)
            except GuestGone:
                raise HarnessError(f"the guest {name} has ended") from None
    raise ManifestError(f"no guest is kept under the name {name!r}")
