"""Try an object in a guest, without pytest: start the guest, send the object, receive the report."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import execnet

from kernel_matrix.plan import preparation
from kernel_matrix.plan.guest_list import RunRequest, arguments_without_tests
from kernel_matrix.plan.preparation import PlannedGuest
from kernel_matrix.report import run_folder
from kernel_matrix.shared.errors import HarnessError
from kernel_matrix.shared.project import Project

#: runs in the guest
_IN_THE_GUEST = """
import pathlib, tempfile
from kernel_matrix.guest.bpf.diagnosis import trying
name, data = channel.receive()
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, name)
    path.write_bytes(data)
    channel.send(trying.report_in_guest(path))
"""


def diagnose(project: Project, kernel: str, path: Path) -> Iterator[tuple[bool, str]]:
    """Try an object in a guest of a kernel, or of each kernel of a group.

    Yield whether all programs were attached, and a report. Raises HarnessError when the kernel is unknown or its guest
    does not boot; when an image is unavailable, after the other guests.
    """
    # not beside the matrix's runs: `latest` is one of those
    record = run_folder.RunDirectory.create(project.results / "diagnose")
    request = RunRequest(
        (kernel,), arguments=arguments_without_tests(project, [kernel]), guests=1, locked=False, silence=None
    )
    plan = preparation.prepare(project, request, record, say=lambda _: None)
    for guest in plan.guests:
        try:
            yield try_in_guest(guest, path)
        except (EOFError, OSError, execnet.RemoteError) as error:
            console = record.console(guest.kernel)
            raise HarnessError(f"{guest.kernel}: its guest gave no answer ({error}); console: {console}") from error
    if plan.missing:
        raise HarnessError("; ".join(f"{name}: {why}" for name, why in plan.missing.items()))


def try_in_guest(guest: PlannedGuest, path: Path) -> tuple[bool, str]:
    """Start a guest, try an object in it and end it; return whether all programs were attached, and a report.

    Raises EOFError, OSError or execnet.RemoteError when the guest does not answer.
    """
    group = execnet.Group()
    try:
        channel = group.makegateway(f"popen//python={shlex.join(guest.relay())}").remote_exec(_IN_THE_GUEST)
        channel.send((path.name, path.read_bytes()))
        succeeded, text = channel.receive()
    finally:
        group.terminate(timeout=10)
    return bool(succeeded), str(text)
