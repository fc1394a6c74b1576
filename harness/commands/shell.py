"""``nox -s shell -- KERNEL [COMMAND]``: a command, or a shell to type into, as root in a guest."""

from __future__ import annotations

import contextlib
import glob
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.commands import terminal
from harness.commands.terminal import GuestGone
from harness.config import manifest
from harness.plan import preparation
from harness.plan.outline import Wishes, without_tests
from harness.plan.preparation import PlannedGuest
from harness.report import run_folder as results
from harness.shared import console, frames, wire
from harness.shared.ending import Ending
from harness.shared.errors import HarnessError, ManifestError
from harness.vm import debugging, guest_spec

#: what the agent runs in place of execnet's worker; the relay takes it for a bootstrap line
_BOOTSTRAP = "import sys; sys.path.insert(0, '/harness'); from harness.guest.system import terminal; terminal.main()"
#: seconds without the guest's beat, which comes every second, after which it counts as hung
_SILENCE = 60.0
#: seconds that a relay may take to end its guest
_SECONDS_TO_END = 10.0


@dataclass(frozen=True, slots=True)
class Options:
    """How the guest is to be."""

    carried: Path | None = None
    results: Path | None = None
    manifest: Path | None = None
    cold: bool = False
    #: a debugger may connect to its kernel
    gdb: bool = False


def run(root: Path, kernel: str, command: Sequence[str], options: Options) -> int:
    """Run a command in a guest of that kernel and return its exit status; raises HarnessError."""
    known = manifest.load(options.manifest or root / "vmimages")
    if kernel not in known.guests:
        raise ManifestError(f"unknown kernel {kernel!r} (known: {', '.join(each.name for each in known.kernels)})")
    record = results.RunDirectory.create((options.results or root / "results") / "shell")
    wishes = Wishes(
        (kernel,),
        arguments=without_tests([kernel]),
        guests=1,
        locked=False,
        silence=debugging.PATIENCE if options.gdb else _SILENCE,
        manifest=options.manifest,
        cold=options.cold,
        worker="again",
        worker_kind="shell",
        carried=options.carried,
    )
    plan = preparation.prepare(root, wishes, record, say=lambda _: None)
    guest = plan.guests[0]

    def ready() -> None:
        if options.gdb:
            spec = wire.decode(guest.spec_path.read_bytes(), guest_spec.GuestSpec)
            command = debugging.gdb(spec, debugging.started(plan.folder, kernel).folder)
            print(f"debug its kernel: {command}", file=sys.stderr, flush=True)

    return _in_guest(root, guest, command, record.console(kernel), ready)


def _in_guest(root: Path, guest: PlannedGuest, command: Sequence[str], log: Path, ready: Callable[[], None]) -> int:
    relay = subprocess.Popen(guest.relay(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root, bufsize=0)
    assert relay.stdin is not None
    assert relay.stdout is not None
    try:
        relay.stdin.write(f"{_BOOTSTRAP!r}\n".encode())
        # its answer; more must not follow the line before that
        relay.stdout.read(1)
        relay.stdin.write(frames.OPENING)
        _read_answer(relay.stdout)
        return terminal.converse(relay.stdout.fileno(), relay.stdin.fileno(), command, ready)
    except (GuestGone, BrokenPipeError):
        raise HarnessError(_how_it_ended(guest, log)) from None
    finally:
        # the relay's sign to end its guest
        relay.stdin.close()
        relay.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            relay.wait(_SECONDS_TO_END)
        relay.kill()
        relay.wait()


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
    # the folder of its relay, and in it that of its boot
    pattern = f"harness-{glob.escape(name)}/*/{guest_spec.Sockets.below(Path()).enter}"
    for path in Path(tempfile.gettempdir()).glob(pattern):
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):  # of a guest that has ended
                continue
            try:
                return terminal.converse(connection.fileno(), connection.fileno(), command)
            except GuestGone:
                raise HarnessError(f"the guest {name} has ended") from None
    raise ManifestError(f"no guest is kept under the name {name!r}")


def kept_name(folder: str) -> str:
    """Return the name by which `enter` finds the guest that has this folder."""
    return Path(folder).parent.name.removeprefix("harness-")


def how_to_enter(folder: str) -> str:
    """Return the command that enters a guest."""
    return f"nox -s shell -- --enter {shlex.quote(kept_name(folder))}"
