"""The service on another machine, for `kernel_matrix.remote.hosts`: prepare guests, return their files.

It runs in that machine's checkout of the project, with its environment, cache and tools.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kernel_matrix.config.project import find
from kernel_matrix.dev import bootstrap
from kernel_matrix.plan import evidence, preparation
from kernel_matrix.plan.guest_list import RunRequest, list_guests
from kernel_matrix.plan.preparation import Prepared
from kernel_matrix.relay import payload
from kernel_matrix.report.run_folder import RunDirectory
from kernel_matrix.shared import hints, wire
from kernel_matrix.shared.errors import HarnessError, ManifestError, ToolMissing, of_system
from kernel_matrix.shared.project import Project
from kernel_matrix.vm import slots
from kernel_matrix.vm.ending import STARTED

#: what the controller runs here; execnet defines ``channel``, and would make a folder that is not there
_SOURCE = """
import os
try:
    os.chdir({folder!r})
except OSError as error:
    channel.send(({failed!r}, ({status}, f"{{error.filename}}: {{error.strerror}}")))
else:
    from kernel_matrix.remote import hosted
    hosted.serve(channel)
"""
#: kinds of message: a line for the user, the answer, or why there is none
SAY, DONE, FAILED = "say", "done", "failed"


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine tells about itself."""

    #: digest of the project's files
    project: str
    #: guests at once, with or without KVM
    slots: int


def source(folder: Path) -> str:
    """Return what the controller runs to have the service of the project in a folder."""
    return _SOURCE.format(folder=str(folder), failed=FAILED, status=ManifestError.exit_status)


def serve(channel: Any) -> None:  # noqa: ANN401 - execnet's, which both ends have and neither imports here
    """Answer (request, argument) until the other end is gone, then delete what was made for the run."""
    try:
        project = find()
    except HarnessError as error:
        channel.send((FAILED, (error.exit_status, str(error))))
        return
    with tempfile.TemporaryDirectory(prefix="harness-host-") as name, contextlib.suppress(EOFError):
        service = Service(project, Path(name), lambda line: channel.send((SAY, line)))
        while True:
            channel.send(service.answer(*channel.receive()))


class Service:
    """One run's part on this machine."""

    def __init__(self, project: Project, folder: Path, say: Callable[[str], None]) -> None:
        self._project = project
        self._folder = folder
        self._say = say
        self._prepared: Prepared | None = None

    def answer(self, request: str, argument: bytes) -> tuple[str, object]:
        """Answer one request: ``machine``, ``prepare``, ``read`` or ``collect``."""
        try:
            return DONE, getattr(self, f"_{request}")(argument)
        except HarnessError as error:
            return FAILED, (error.exit_status, str(error))
        except OSError as error:
            return FAILED, (HarnessError.exit_status, str(of_system(error)))

    def _machine(self, _: bytes) -> bytes:
        if lacking := bootstrap.missing(("build", "matrix")):
            raise ToolMissing(
                bootstrap.explain("kernel-matrix", lacking, bootstrap.family(), hints.command("bootstrap"))
            )
        free = slots.free_memory_mib(Path("/proc/meminfo").read_text())
        count = slots.guests_at_once(
            cores=os.cpu_count() or 1, emulated=False, free_mib=free, memory_mib=self._project.guest.memory_mib
        )
        return wire.encode(Machine(payload.digest(self._project), count))

    def _prepare(self, argument: bytes) -> bytes:
        """Prepare the guests that were dealt to this machine."""
        request = wire.decode(argument, RunRequest)
        run = RunDirectory.create(self._folder)
        prepared = preparation.prepare_guests(
            self._project, request, list_guests(self._project, request), run, say=self._say
        )
        self._prepared = replace(prepared, objects=evidence.with_sources(self._project, prepared.objects))
        return wire.encode(self._prepared)

    def _read(self, argument: bytes) -> bytes:
        return Path(argument.decode()).read_bytes()

    def _collect(self, _: bytes) -> dict[str, bytes]:
        """Return the relays' files by name: consoles, and how guests started."""
        paths = (*self._folder.glob("*/console/*.log"), *self._folder.glob(f"*/guests-*/*{STARTED}"))
        return {path.name: path.read_bytes() for path in paths if not path.parent.parent.is_symlink()}
