"""The relay's one client: its command, and a process of it with the opening done.

xdist starts a relay by its command, as the python of an execnet gateway; `Relay` is for whoever speaks with a guest
without xdist: a probe boot, a shell.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kernel_matrix.shared import wire
from kernel_matrix.shared.ending import Ending

#: seconds that a relay may take to end its guest
_SECONDS_TO_END = 10.0


def command(job: Path, ending: Path, python: str = sys.executable) -> list[str]:
    """Return the command of the relay that does a job and leaves its Ending there."""
    return [python, "-m", "kernel_matrix.relay.serve", str(job), str(ending)]


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay that has answered the bootstrap line; its guest boots, or will."""

    process: subprocess.Popen[bytes]
    #: to the guest, and from it
    sending: IO[bytes]
    receiving: IO[bytes]

    def wait(self, seconds: float) -> bool:
        """Wait for its end; return whether it came in time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
            return True
        return False


@contextmanager
def started(words: list[str], bootstrap: str, folder: Path) -> Iterator[Relay]:
    """Start a relay whose guest's agent runs that Python in place of execnet's worker; end both after the block."""
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder, bufsize=0)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(f"{bootstrap!r}\n".encode())
        # its answer, which execnet waits for; more must not follow the line before that
        process.stdout.read(1)
        yield Relay(process, process.stdin, process.stdout)
    finally:
        # the relay's sign to end its guest
        process.stdin.close()
        process.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_END)
        process.kill()
        process.wait()


def boot_once(job: Path, ending: Path, folder: Path, seconds: float) -> Ending | None:
    """Boot a guest, let it go as soon as it answers; None when the relay did not end in time."""
    with started(command(job, ending), 'import sys; sys.stdout.write("1"); sys.stdout.flush()', folder) as relay:
        # the guest's own answer is dropped, and its end ends the relay
        if not relay.wait(seconds):
            relay.process.kill()
            return None
    return wire.decode(ending.read_bytes(), Ending)
