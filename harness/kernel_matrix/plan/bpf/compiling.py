"""Compile once for all guests of a kernel what a loader compiles in guests.

A guest compiles what it does not get with its project. That takes minutes, and a kernel has several guests: so one
guest of each kernel compiles first, and the others get the result. Where this fails nothing is lost: the tests' own
guests compile, and show why it cannot be done.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from kernel_matrix import images
from kernel_matrix.plan import selection
from kernel_matrix.plan.guest_list import ListedGuest, RunRequest
from kernel_matrix.plan.selection import Selection
from kernel_matrix.relay import client, payload
from kernel_matrix.relay.client import Relay
from kernel_matrix.relay.job import Job
from kernel_matrix.shared import wire
from kernel_matrix.shared.bpf import compiled
from kernel_matrix.shared.errors import of_system
from kernel_matrix.shared.project import Project
from kernel_matrix.vm.ending import ENDING, Ending

#: what the agent runs instead of execnet's worker; the first byte is its answer, which the relay expects
_BOOTSTRAP = (
    'import sys; sys.stdout.write("1"); sys.stdout.flush(); '
    "from kernel_matrix.guest.bpf.loader_support import compile_ahead; compile_ahead.main({objects!r})"
)
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Compiling:
    """A guest that compiles."""

    kernel: str
    #: the command of its relay, and the file to which it writes the guest's Ending
    relay: Sequence[str]
    ending_path: Path
    #: the objects whose sources it compiles
    objects: tuple[str, ...]


def ahead(guests: Sequence[Compiling], folder: Path, say: Callable[[str], None]) -> tuple[str, ...]:
    """Run these guests at once, in that working directory, and keep what they compile; return the run's notes of it.

    ``say`` prints what happens.
    """
    if not guests:
        return ()
    notes: list[str] = []

    def note(line: str) -> None:
        notes.append(line)
        say(line)

    names = ", ".join(sorted({name for guest in guests for name in guest.objects}))
    say(f"compiling for bcc on {', '.join(guest.kernel for guest in guests)}: {names}")
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for guest in guests:
            bootstrap = _BOOTSTRAP.format(objects=list(guest.objects))
            relay = stack.enter_context(client.started(list(guest.relay), bootstrap, folder))
            selector.register(relay.receiving, selectors.EVENT_READ, (guest, relay, bytearray(), set(guest.objects)))
        # a relay ends a guest that is silent: each of them comes to its end
        while selector.get_map():
            for key, _ in selector.select():
                guest, relay, waiting, left = key.data
                chunk = relay.receiving.read(_CHUNK)
                waiting += chunk
                _keep_lines(guest.kernel, waiting, left, note)
                if not chunk:
                    selector.unregister(relay.receiving)
                    if left:
                        note(_why(guest, relay, left))
    return tuple(notes)


def _keep_lines(kernel: str, waiting: bytearray, left: set[str], note: Callable[[str], None]) -> None:
    """Keep the values of the whole lines, and remove these."""
    *lines, rest = waiting.split(b"\n")
    waiting[:] = rest
    for line in filter(None, lines):
        text = line.decode(errors="replace")
        note(f"{kernel}: {_refused(text, left) if text.startswith('{') else keep(text, left)}")


def _refused(text: str, left: set[str]) -> str:
    """Return a line about what a guest could not compile; that object is removed from ``left``."""
    try:
        refused = compiled.Refused.of_text(text)
    except ValueError as error:
        return f"what a loader did not compile is not known: {error}"
    left.discard(refused.object)
    return f"bcc does not compile {refused.object}, and tests that load it with bcc fail: {refused.reason}"


def keep(text: str, left: set[str] | None = None) -> str:
    """Keep what a guest has compiled for later guests; return a line about it. Its object is removed from ``left``."""
    try:
        made = compiled.keep(images.compiled_dir(), compiled.of_text(text))
    except (ValueError, OSError) as error:
        return f"what a loader compiled is not kept: {of_system(error) if isinstance(error, OSError) else error}"
    if left is not None:
        left.discard(made.name.removesuffix(".bpf.o"))
    return f"{made.loader} compiled {made.name} in {made.seconds:g} s, and later guests get it"


def _why(guest: Compiling, relay: Relay, left: set[str]) -> str:
    relay.process.wait()
    try:
        ending = wire.decode(guest.ending_path.read_bytes(), Ending).describe()
    except FileNotFoundError:
        ending = "its relay was killed"
    names = ", ".join(sorted(left))
    return f"{guest.kernel}: not compiled ahead, so each guest that needs it compiles: {names} ({ending})"


def needed(
    project: Project, request: RunRequest, jobs: Sequence[tuple[ListedGuest, Job]], folder: Path
) -> tuple[Compiling, ...]:
    """Return a guest for each kernel, to compile what the tests' guests would all compile; their jobs go to the folder.

    None where the selection has parts of files, or no tests: then a guest compiles what is asked for.
    """
    if not request.rehearsed:
        return ()
    compilers: dict[str, Compiling] = {}
    for guest, job in jobs:
        arguments = guest.arguments or request.arguments
        lacking = payload.lacking(job.payload)
        if not lacking or Selection(arguments, request.options).narrowed or job.payload.compiler in compilers:
            continue
        if objects := selection.loaded_objects(project, arguments, lacking):
            name = f"{job.kernel}-compiling"
            path, ending = folder / f"{name}.json", folder / f"{name}{ENDING}"
            wire.write(path, replace(job, worker="never", console=job.console.with_stem(name)))
            compilers[job.payload.compiler] = Compiling(
                job.kernel, client.command(path, ending), ending, tuple(sorted(objects))
            )
    return tuple(compilers.values())
