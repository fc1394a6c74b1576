"""Clients and servers as people run them, watched by the monitor until they have ended."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kernel_matrix.guest.system.deadline import limit, wait_until
from suites.kernel_account import runs_skipped
from suites.sockets.conftest import MEASUREMENTS, Kind, Monitor, NetEvent, State
from suites.sockets.model import INET, totals_of

#: seconds on the reference machine for a program to begin, to do its work, to end
_PATIENCE = 20.0
#: net/tcp_states.h: TCP_LISTEN; a UDP socket that is bound is in TCP_CLOSE
_LISTENING = {"tcp": "0A", "udp": "07"}


class Watched:
    """All events since the beginning: read while programs run, because they are more than the ring buffer holds."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._events: list[NetEvent] = []

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition, and read events meanwhile."""

        def met() -> bool:
            self._read()
            return condition()

        wait_until(met, what, _PATIENCE)
        self._read()

    def _read(self) -> None:
        self._events += self._monitor.events()

    def of(self, program: subprocess.Popen[bytes], *kinds: Kind, fd: int | None = None) -> list[NetEvent]:
        """Return the events of a program on sockets of IPv4 that did something, of these kinds, in order."""
        self._read()
        return [
            event
            for event in self._events
            if event.tgid == program.pid
            and event.family == INET
            and event.state in {State.DONE, State.IN_PROGRESS}
            and event.kind in kinds
            and fd in {None, event.fd}
        ]

    def sent(self, program: subprocess.Popen[bytes]) -> int:
        """Return how many bytes a program has sent."""
        return sum(event.bytes for event in self.of(program, Kind.SEND))

    def received(self, program: subprocess.Popen[bytes]) -> int:
        """Return how many bytes a program has received."""
        return sum(event.bytes for event in self.of(program, Kind.RECEIVE))

    def add_up(self) -> bool:
        """Whether the monitor's totals are the sums of these events."""
        self._read()
        return self._monitor.totals() == totals_of(self._events)

    def run(self, *command: str, folder: Path) -> subprocess.Popen[bytes]:
        """Run a client to its end, which must be a success; its output is in the file `out` of the folder."""
        with (folder / "out").open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as client:
            try:
                self.wait(lambda: client.poll() is not None, f"the end of {command[0]}")
            except TimeoutError:
                client.kill()
                raise
        assert client.returncode == 0, (folder / "out").read_text()
        return client

    @contextmanager
    def serving(self, port: int, *command: str, folder: Path, over: str = "tcp") -> Iterator[subprocess.Popen[bytes]]:
        """Run a server; enter the block when it listens, end it with SIGTERM if it has not ended by itself."""
        log = folder / "server"
        with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as server:
            try:
                self.wait(lambda: server.poll() is not None or _listens(port, over), f"{command[0]} listens")
                assert server.returncode is None, log.read_text()
                yield server
                server.terminate()
                server.wait(limit(_PATIENCE))
            finally:
                server.kill()


def measured(monitor: Monitor, folder: Path, measurement: Callable[[Watched, Path], None]) -> None:
    """Make a measurement, with a folder of its own; again if it fails and the kernel has skipped programs since.

    What a program was not run for is in no event and in no total (docs/programs.md, blind spots).
    """
    before = runs_skipped()
    for number in range(MEASUREMENTS):
        place = folder / str(number)
        place.mkdir()
        monitor.begin()
        try:
            measurement(Watched(monitor), place)
        except (AssertionError, TimeoutError):
            if number == MEASUREMENTS - 1 or runs_skipped() == before:
                raise
        else:
            return


def _listens(port: int, over: str) -> bool:
    """Whether somebody listens on a port in this namespace (proc(5), /proc/net/tcp)."""
    lines = Path(f"/proc/thread-self/net/{over}").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return any(int(one[1].partition(":")[2], 16) == port and one[3] == _LISTENING[over] for one in fields)


def counters(file: str, protocol: str) -> Counter[str]:
    """Return the kernel's counters of a protocol in this namespace (/proc/net/snmp, /proc/net/netstat)."""
    lines = Path(f"/proc/thread-self/net/{file}").read_text().splitlines()
    names, values = (line.split()[1:] for line in lines if line.startswith(f"{protocol}:"))
    return Counter(dict(zip(names, map(int, values), strict=True)))


def lines(text: str) -> Sequence[Sequence[int]]:
    """Return the numbers of each line."""
    return [[int(word) for word in line.split()] for line in text.splitlines()]
