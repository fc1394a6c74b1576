"""One errand to a guest: start it, send an object, hear what became of it there; without pytest."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import execnet

from harness import preparation, results
from harness.errors import HarnessError
from harness.preparation import Wishes

#: runs in the guest, where the project is at /harness
_IN_THE_GUEST = """
import pathlib, sys, tempfile
sys.path.insert(0, "/harness")
from harness.guest import trying
name, data = channel.receive()
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, name)
    path.write_bytes(data)
    channel.send(trying.report(path))
"""


def diagnose(root: Path, kernel: str, path: Path) -> tuple[bool, str]:
    """Try an object in a guest of a kernel; return whether all went well, and what to tell the user.

    Raises HarnessError when the kernel is not known or its guest does not come up.
    """
    record = results.RunDirectory.create(root / "results")
    wishes = Wishes((kernel,), arguments=(), guests=1, locked=False, silence=None)
    plan = preparation.prepare(root, wishes, record, say=lambda _: None)
    guest = plan.guests[0]
    relay = shlex.join([sys.executable, "-m", "harness.relay", str(guest.spec_path), str(guest.ending_path)])
    group = execnet.Group()
    try:
        gateway = group.makegateway(f"popen//python={relay}")
        channel = gateway.remote_exec(_IN_THE_GUEST)
        channel.send((path.name, path.read_bytes()))
        well, text = channel.receive()
    except (EOFError, OSError, execnet.RemoteError) as error:
        raise HarnessError(
            f"{kernel}: its guest gave no answer ({error}); console: {record.console(kernel)}"
        ) from error
    finally:
        group.terminate(timeout=10)
    return bool(well), str(text)
