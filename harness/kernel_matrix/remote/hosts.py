"""Other machines for guests, reached by ssh: which ones, which guests each gets, and requests to them.

Connections are execnet's (``ssh=``). Requests are answered by `kernel_matrix.remote.hosted` there.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import execnet
from execnet import HostNotFound

from kernel_matrix.plan.preparation import PlannedGuest
from kernel_matrix.plan.sharding import Unit
from kernel_matrix.remote import hosted
from kernel_matrix.shared.channel.division import WorkerId
from kernel_matrix.shared.errors import HarnessError, ManifestError

Say = Callable[[str], None]

#: no prompts: nobody answers them; a machine that is switched off is noticed within a minute
_SSH = "-o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 -o ServerAliveCountMax=3"
#: seconds within which a machine answers a short request; longer than ssh takes to notice that it is gone
PATIENCE = 90.0


@dataclass(frozen=True, slots=True)
class Host:
    """A machine for guests."""

    #: execnet's name of the connection
    identity: str
    #: arguments of ssh: options, then the destination
    ssh: str
    #: the project there
    folder: Path
    #: the Python of its environment there
    python: str

    @property
    def name(self) -> str:
        """The destination alone."""
        return self.ssh.split()[-1]

    @property
    def spec(self) -> str:
        """The execnet spec of a connection to it."""
        # a thread for each guest
        return f"ssh={_SSH} {self.ssh}//python={shlex.quote(self.python)}//execmodel=thread//id={self.identity}"

    def relay(self, guest: PlannedGuest, worker: WorkerId) -> str:
        """Return the execnet spec of a guest there."""
        relay = shlex.join(guest.of_worker(worker).relay(self.python))
        return f"popen//via={self.identity}//kernel={guest.kernel}//worker={worker.number}//python={relay}"


def parse(text: str, root: Path) -> tuple[Host, ...]:
    """Parse ``user@a,user@b:/folder``; the folder is ``root`` by default. Raises ManifestError."""
    hosts = []
    for number, entry in enumerate(text.split(","), 1):
        match = re.fullmatch(r"(?P<ssh>.*?)(?::(?P<folder>/.*))?", entry.strip())
        words = match["ssh"].split() if match else []
        if not match or not words or words[-1].startswith("-") or "//" in entry:
            raise ManifestError(f"--hosts {text}: {entry!r} is not a host such as user@name or user@name:/folder")
        folder = Path(match["folder"] or root)
        hosts.append(Host(f"host-{number}", " ".join(words), folder, _python(root, folder)))
    if len({(host.ssh, host.folder) for host in hosts}) < len(hosts):
        raise ManifestError(f"--hosts {text}: a host is named twice")
    return tuple(hosts)


def _python(root: Path, folder: Path) -> str:
    """Return the path of the Python there: that of this one, relative to the project if it is below it here."""
    here = Path(sys.executable)
    return str(folder / here.relative_to(root) if here.is_relative_to(root) else here)


def deal(weights: Mapping[str, float], capacity: Mapping[str, int]) -> dict[str, list[str]]:
    """Deal guests to hosts, the longest first, each to the host that would finish it first.

    ``weights``: guest -> seconds; ``capacity``: host -> guests at once. Of equal hosts the first one gets it.
    """
    dealt: dict[str, list[str]] = {host: [] for host in capacity}
    loads = dict.fromkeys(capacity, 0.0)
    for guest in sorted(weights, key=lambda guest: -weights[guest]):
        host = min(capacity, key=lambda host: (loads[host] + weights[guest]) / capacity[host])
        dealt[host].append(guest)
        loads[host] += weights[guest]
    return dealt


def by_guest(weights: Mapping[Unit, float], guests: Sequence[str]) -> dict[str, float]:
    """Add up each guest's test files; a guest without files still takes 1 second."""
    return {guest: 1.0 + sum(seconds for unit, seconds in weights.items() if unit.kernel == guest) for guest in guests}


class HostGone(HarnessError):
    """The connection to a host is lost."""


class Connection:
    """Requests to one host; every failure names it."""

    def __init__(self, host: Host, group: execnet.Group) -> None:
        self.host = host
        try:
            with without_interrupt():
                gateway = group.makegateway(host.spec)
            self._channel = gateway.remote_exec(hosted.source(host.folder))
        except HostNotFound as error:
            raise HarnessError(f"{host.name}: ssh cannot connect") from error
        except (OSError, EOFError) as error:
            raise ManifestError(
                f"{host.name}: {host.python} does not answer: is the project there, and set up?"
            ) from error

    def send(self, request: str, argument: bytes = b"") -> None:
        """Send a request."""
        try:
            self._channel.send((request, argument))
        except OSError as error:
            # the other end may have sent why it has ended
            self.receive(lambda _: None, PATIENCE)
            raise HostGone(f"{self.host.name}: the connection is lost") from error

    def receive(self, say: Say, timeout: float | None = None) -> Any:  # noqa: ANN401 - as the request has it
        """Return the answer; raises HarnessError, or ManifestError where that was raised there."""
        while True:
            try:
                kind, value = self._channel.receive(timeout)
            except (EOFError, self._channel.TimeoutError) as error:
                raise HostGone(f"{self.host.name}: the connection is lost") from error
            except self._channel.RemoteError as error:
                line = str(error).strip().rpartition("\n")[2]
                raise ManifestError(f"{self.host.name}: {self.host.folder} is not this project: {line}") from error
            if kind == hosted.DONE:
                return value
            if kind == hosted.FAILED:
                status, line = value
                raise (ManifestError if status == ManifestError.exit_status else HarnessError)(
                    f"{self.host.name}: {line}"
                )
            say(f"{self.host.name}: {value}")

    def ask(self, request: str, argument: bytes = b"") -> Any:  # noqa: ANN401 - as the request has it
        """Send a short request and return the answer."""
        self.send(request, argument)
        return self.receive(lambda _: None, PATIENCE)


@contextlib.contextmanager
def without_interrupt() -> Iterator[None]:
    """Block Ctrl-C for processes that are started meanwhile: a terminal sends it to them, too.

    The controller ends a run, and needs its connections for that.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
