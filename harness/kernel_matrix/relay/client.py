"""The client of a relay: its command, and a relay process that has answered the bootstrap line.

xdist runs the command, as the python of an execnet gateway. `Relay` is for callers that use a guest without xdist:
a probe boot, a shell.
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
from kernel_matrix.vm.ending import Ending

#: seconds that a relay has to end its guest
_SECONDS_TO_END = 10.0


def command(job: Path, ending: Path, python: str = sys.executable) -> list[str]:
    """Return the command of the relay that runs ``job`` and writes its Ending to ``ending``."""
    return [python, "-m", "kernel_matrix.relay.serve", str(job), str(ending)]


@dataclass(frozen=True, slots=True)
class Relay:
    """A relay that has answered the bootstrap line; its guest is booting or waits for a slot."""

    process: subprocess.Popen[bytes]
    #: streams to the guest and from it
    sending: IO[bytes]
    receiving: IO[bytes]

    def wait(self, seconds: float) -> bool:
        """Wait until the relay has ended; return whether it did in time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
            return True
        return False


@contextmanager
def started(words: list[str], bootstrap: str, folder: Path) -> Iterator[Relay]:
    """Start a relay whose guest runs ``bootstrap`` in place of execnet's worker; end both after the block."""
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder, bufsize=0)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(f"{bootstrap!r}\n".encode())
        # the relay answers the line with one byte, as execnet expects; nothing may follow the line before that
        process.stdout.read(1)
        yield Relay(process, process.stdin, process.stdout)
    finally:
        # the end of its standard input makes the relay end its guest
        process.stdin.close()
        process.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_END)
        process.kill()
        process.wait()


def boot_once(job: Path, ending: Path, folder: Path, seconds: float) -> Ending | None:
    """Boot a guest and release it as soon as it answers; return None when the relay did not end in time."""
    with started(command(job, ending), 'import sys; sys.stdout.write("1"); sys.stdout.flush()', folder) as relay:
        # the relay drops the guest's own answer, and ends with its guest
        if not relay.wait(seconds):
            relay.process.kill()
            return None
    return wire.decode(ending.read_bytes(), Ending)
