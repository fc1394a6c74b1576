"""Reach into a running guest: the socket that enters it, and QEMU's debugger port (``--gdb``)."""

from __future__ import annotations

import contextlib
import glob
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kernel_matrix.shared import hints, wire
from kernel_matrix.shared.errors import HarnessError
from kernel_matrix.vm.boot_spec import BootSpec, Sockets
from kernel_matrix.vm.ending import STARTED, Started
from kernel_matrix.vm.qmp import Monitor, QmpError

#: seconds of silence for a guest that a debugger may have stopped
PATIENCE = 86400.0
#: seconds that the monitor has for an answer
_TIMEOUT = 10.0


def started(folder: Path, kernel: str) -> Started:
    """Return the Started of a kernel's current guest; ``folder`` is the run's folder for its relays."""
    path = max(folder.glob(f"{kernel}.*{STARTED}"), key=lambda path: path.stat().st_mtime_ns)
    return wire.decode(path.read_bytes(), Started)


def enter_sockets(name: str) -> Iterator[Path]:
    """Yield the sockets that enter the guest that a run keeps under this name; a guest that has ended may leave one."""
    # the relay's folder, and in it the folder of the boot
    yield from Path(tempfile.gettempdir()).glob(f"harness-{glob.escape(name)}/*/{Sockets.below(Path()).enter}")


def kept_name(folder: str) -> str:
    """Return the name by which `enter_sockets` finds the guest with this folder."""
    return Path(folder).parent.name.removeprefix("harness-")


def enter_command(folder: str) -> str:
    """Return the command that enters a guest."""
    return hints.command("shell", f"--enter {shlex.quote(kept_name(folder))}")


def gdb(spec: BootSpec, folder: str) -> str:
    """Open the debugger port of the guest with this folder; return the gdb command. Raises HarnessError.

    A kernel that starts through PVH is at the addresses in its file. Distributions have its symbols in other packages.
    """
    place = Path(folder)
    port = place / "gdb"
    try:
        with contextlib.closing(Monitor(place / "monitor", seconds=_TIMEOUT)) as monitor:
            line = f"gdbserver unix:{port},server=on,wait=off"
            monitor.execute("human-monitor-command", **{"command-line": line})
    except OSError as error:
        raise HarnessError("--gdb: only a guest that was restored has a monitor (no --cold)") from error
    except QmpError as error:
        raise HarnessError(f"--gdb: {error}") from error
    if not port.exists():
        raise HarnessError("--gdb: this QEMU has no debugger port")
    return f"gdb {shlex.quote(str(spec.vmlinuz))} -ex {shlex.quote(f'target remote {port}')}"
