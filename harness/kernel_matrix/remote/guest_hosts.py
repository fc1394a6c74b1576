"""The machines that a run's guests are on: this one, or others. The run is the same either way.

xdist starts a guest's relay through a gateway to the guest's machine: execnet's ssh transport, one connection for all
guests of a machine, and each relay a ``popen`` *via* it. xdist sends files to workers that are not ``popen``; so here
it sends none, and a relay needs no knowledge of ssh. A second connection prepares a machine's guests, with the cache
and the tools of that machine, and returns their files.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import tempfile
from collections.abc import Collection, Generator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import execnet
import pytest
from execnet import HostNotFound
from xdist.workermanage import WorkerController

from kernel_matrix.plan import evidence, preparation
from kernel_matrix.plan.guest_list import GuestList, RunRequest, list_guests, weigh
from kernel_matrix.plan.preparation import Plan, PlannedGuest, Prepared
from kernel_matrix.relay import payload
from kernel_matrix.remote import hosts
from kernel_matrix.remote.hosted import Machine
from kernel_matrix.remote.hosts import Connection, Host, HostGone, Say
from kernel_matrix.report.run_folder import KernelFacts, RunDirectory
from kernel_matrix.shared import atomic, pytest_internals, wire
from kernel_matrix.shared.channel.division import WorkerId
from kernel_matrix.shared.errors import HarnessError, ManifestError
from kernel_matrix.shared.outcomes.features import plain_kernel
from kernel_matrix.shared.project import Project
from kernel_matrix.vm.ending import STARTED


class GuestHosts(Protocol):
    """What the controller needs of the machines that guests are on."""

    def prepare(self, project: Project, request: RunRequest, run: RunDirectory, say: Say) -> Plan:
        """Prepare the run; raises HarnessError."""

    def gateways(self) -> list[str]:
        """Return the execnet specs of the gateways through which relays are started."""

    def relay(self, guest: PlannedGuest, worker: WorkerId) -> str:
        """Return the execnet spec of the relay of a guest in that worker."""

    def has_slot(self, kernel: str, up: Collection[str]) -> bool:
        """Whether a slot is free for one more guest of that kernel; ``up`` are the kernels of all guests."""

    def gone(self, node: WorkerController) -> str:
        """Return a line that says that a node's machine is gone; empty when it is not."""

    def replaced(self, kernel: str) -> str:
        """Return a line that says why a kernel's machine did not start its guest; empty when it did."""

    def ending(self, guest: PlannedGuest) -> bytes:
        """Return the Ending of a guest that has ended, as JSON; raises HarnessError or OSError."""

    def collect(self, run: RunDirectory, folder: Path) -> None:
        """Fetch the consoles and the relays' files, except from a lost host. Raises HarnessError, OSError."""


class LocalHost:
    """This machine."""

    def __init__(self) -> None:
        self._at_once = 0

    def prepare(self, project: Project, request: RunRequest, run: RunDirectory, say: Say) -> Plan:
        """As in `GuestHosts`."""
        plan = preparation.prepare(project, request, run, say=say)
        self._at_once = plan.facts.guests
        return plan

    def gateways(self) -> list[str]:
        """As in `GuestHosts`."""
        return []

    def relay(self, guest: PlannedGuest, worker: WorkerId) -> str:
        """As in `GuestHosts`."""
        relay = shlex.join(guest.of_worker(worker).relay())
        return f"popen//kernel={guest.kernel}//worker={worker.number}//python={relay}"

    def has_slot(self, kernel: str, up: Collection[str]) -> bool:  # noqa: ARG002 - all kernels have the same machine
        """As in `GuestHosts`."""
        return len(up) < self._at_once

    def gone(self, _: WorkerController) -> str:
        """As in `GuestHosts`."""
        return ""

    def replaced(self, _: str) -> str:
        """As in `GuestHosts`."""
        return ""

    def ending(self, guest: PlannedGuest) -> bytes:
        """As in `GuestHosts`."""
        return guest.ending_path.read_bytes()

    def collect(self, run: RunDirectory, folder: Path) -> None:
        """As in `GuestHosts`: all files are here already."""


class RemoteHosts:
    """Other machines; also a pytest plugin, for what xdist does with the connections."""

    def __init__(self, machines: Iterable[Host]) -> None:
        self._hosts = {host.identity: host for host in machines}
        self._connections: dict[str, Connection] = {}
        #: guest -> its host
        self._of: dict[str, Host] = {}
        #: host -> guests at once
        self._at_once: dict[Host, int] = {}
        self._group = execnet.Group()
        #: kernel -> why a stand-in on this machine was started in place of its guest
        self._replaced: dict[str, str] = {}

    def prepare(self, project: Project, request: RunRequest, run: RunDirectory, say: Say) -> Plan:
        """Connect, deal the guests by load, and let each machine prepare its guests; raises HarnessError."""
        if request.manifest is not None or request.carried is not None or request.with_cache:
            raise ManifestError(
                "--hosts: --manifest, --carry, --lf, --ff, --nf, --sw need files that only this machine has"
            )
        listed = list_guests(project, request)
        if not listed.guests:
            return preparation.plan(project, request, listed, Prepared((), run.path))
        digest = payload.digest(project)
        capacity = {identity: self._connect(host, digest).slots for identity, host in self._hosts.items()}
        names = [guest.name for guest in listed.guests]
        dealt = hosts.deal(hosts.by_guest(weigh(project, listed, request), names), capacity)
        files = {guest.name: guest.arguments for guest in listed.guests}
        for identity, guests in dealt.items():
            say(f"{self._hosts[identity].name}: {' '.join(guests) or 'no guests'}")
            dealt_request = replace(request, dealt={guest: files[guest] for guest in guests}, shard=None, baseline=None)
            if guests:
                self._connections[identity].send("prepare", wire.encode(dealt_request))
        parts = {identity: self._prepared(identity, say) for identity, guests in dealt.items() if guests}
        folder = Path(tempfile.mkdtemp(prefix="guests-", dir=run.path))
        return preparation.plan(project, request, listed, self._joined(listed, parts, folder))

    def _connect(self, host: Host, digest: str) -> Machine:
        connection = self._connections[host.identity] = Connection(host, self._group)
        machine = wire.decode(connection.ask("machine"), Machine)
        if machine.project != digest:
            why = "is not the project as it is here (another commit, or changed files)"
            raise ManifestError(f"{host.name}: {host.folder} {why}")
        return machine

    def _prepared(self, identity: str, say: Say) -> Prepared:
        prepared = wire.decode(self._connections[identity].receive(say), Prepared)
        self._of |= {guest.kernel: self._hosts[identity] for guest in prepared.guests}
        self._at_once[self._hosts[identity]] = prepared.at_once
        return prepared

    def _joined(self, listed: GuestList, parts: dict[str, Prepared], folder: Path) -> Prepared:
        """Join what the machines have prepared, in the order of the run."""
        guests = {guest.kernel: guest for part in parts.values() for guest in part.guests}
        facts = {kernel.name: kernel for part in parts.values() for kernel in part.kernels}
        order = [guest.name for guest in listed.guests if guest.name in guests]
        self._check_packages([facts[name] for name in order])
        return Prepared(
            guests=tuple(guests[name] for name in order),
            folder=folder,
            missing={name: why for part in parts.values() for name, why in part.missing.items()},
            accelerator="; ".join(self._describe(identity, part) for identity, part in parts.items()),
            at_once=sum(part.at_once for part in parts.values()),
            kernels=tuple(facts[name] for name in order),
            objects=evidence.joined(one for part in parts.values() for one in part.objects),
        )

    def _describe(self, identity: str, part: Prepared) -> str:
        return f"{self._hosts[identity].name} ({', '.join(guest.kernel for guest in part.guests)}): {part.accelerator}"

    def _check_packages(self, kernels: Iterable[KernelFacts]) -> None:
        """Refuse to run a kernel and its variants from two packages."""
        seen: dict[str, KernelFacts] = {}
        for kernel in kernels:
            before = seen.setdefault(plain_kernel(kernel.name), kernel)
            if (before.release, before.version) != (kernel.release, kernel.version):
                where = [f"{package.version} on {self._of[package.name].name}" for package in (before, kernel)]
                raise HarnessError(f"kernel {plain_kernel(kernel.name)} is {where[0]} and {where[1]}")

    def gateways(self) -> list[str]:
        """As in `GuestHosts`."""
        return [host.spec for host in dict.fromkeys(self._of.values())]

    def relay(self, guest: PlannedGuest, worker: WorkerId) -> str:
        """As in `GuestHosts`."""
        return self._of[guest.kernel].relay(guest, worker)

    def has_slot(self, kernel: str, up: Collection[str]) -> bool:
        """As in `GuestHosts`: on the machine that the kernel was dealt to."""
        host = self._of[kernel]
        return sum(self._of[other] == host for other in up) < self._at_once[host]

    def gone(self, node: WorkerController) -> str:
        """As in `GuestHosts`: ask the machine through the gateway that the guest was started through."""
        identity: str | None = node.gateway.spec.via
        if identity is None or _answers(node.nodemanager.group[identity]):
            return ""
        pytest_internals.retire(node.nodemanager.group, identity)
        return f"host {self._hosts[identity].name} is gone"

    def replaced(self, kernel: str) -> str:
        """As in `GuestHosts`."""
        return self._replaced.get(kernel, "")

    def ending(self, guest: PlannedGuest) -> bytes:
        """As in `GuestHosts`."""
        connection = self._connections[self._of[guest.kernel].identity]
        content: bytes = connection.ask("read", str(guest.ending_path).encode())
        return content

    def collect(self, run: RunDirectory, folder: Path) -> None:
        """As in `GuestHosts`; then the machines delete what they made for the run."""
        refused = []
        for connection in self._connections.values():
            try:
                files = connection.ask("collect")
            except HostGone:
                continue
            except HarnessError as error:
                refused.append(str(error))
                continue
            for name, content in files.items():
                path = folder / name if name.endswith(STARTED) else run.console(name.removesuffix(".log"))
                atomic.write(path, content)
        self._group.terminate(timeout=hosts.PATIENCE)
        if refused:
            raise HarnessError("; ".join(refused))

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionstart(self) -> Generator[None, Any, Any]:
        """Block Ctrl-C for the ssh that xdist starts, and exit with one line where ssh cannot connect."""
        try:
            with hosts.without_interrupt():
                return (yield)
        except (HostNotFound, EOFError, OSError) as error:
            pytest.exit(f"a host is gone: {error}", returncode=HarnessError.exit_status)

    def pytest_xdist_setupnodes(self, config: pytest.Config) -> None:
        """Give xdist a stand-in where a machine does not start a relay: without one, xdist ends the session."""
        group = pytest_internals.group(config)
        make = group.makegateway

        def stand_in(spec: execnet.XSpec) -> execnet.Gateway:
            try:
                return make(spec)
            except (AssertionError, EOFError, OSError) as error:  # what execnet raises where there is no answer
                if spec.via is None:
                    raise
                host = self._hosts[spec.via].name
                gone = f"host {host} is gone"
                started = f"host {host} did not start the guest's relay: {type(error).__name__} {error}"
                self._replaced[str(spec.kernel)] = started if _answers(group[spec.via]) else gone
                spec.via, spec.python = None, shlex.quote(sys.executable)
                return make(spec)

        pytest_internals.replace_makegateway(group, stand_in)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Retire gateways that xdist would wait for forever: those behind a connection that is lost or ends first.

        execnet ends a connection before the gateways through it where those are ending already.
        """
        group = pytest_internals.group(session.config)
        for identity in {host.identity for host in self._of.values()}:
            pytest_internals.retire(group, identity, ended=_answers(group[identity]))


def _answers(gateway: execnet.Gateway) -> bool:
    try:
        channel = gateway.remote_exec("channel.send(None)")
        with contextlib.suppress(channel.TimeoutError):
            channel.receive(hosts.PATIENCE)
            return True
    except (OSError, EOFError):
        return False
    return False


def of(text: str | None, root: Path) -> GuestHosts:
    """Return the machines of ``--hosts``, None: this one; raises ManifestError."""
    return LocalHost() if text is None else RemoteHosts(hosts.parse(text, root))
