"""Fixtures for a project's own tests of its objects: attach one, send it traffic, read its maps and events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import pytest

from kernel_matrix.guest.bpf import kernel_modules
from kernel_matrix.guest.bpf.foreign import environment, modules
from kernel_matrix.guest.bpf.foreign.configuring import Foreign
from kernel_matrix.guest.bpf.foreign.hooks.place import Place
from kernel_matrix.guest.bpf.foreign.scenarios.attached import Attached
from kernel_matrix.guest.bpf.foreign.scenarios.attached import attached as attached_object
from kernel_matrix.guest.bpf.foreign.scenarios.reading import Events, MapView
from kernel_matrix.guest.bpf.steps import XdpFlags
from kernel_matrix.guest.pytest.marks import GUEST_FACTS
from kernel_matrix.guest.system.execs import Child
from kernel_matrix.guest.system.netns import Veth
from kernel_matrix.shared.bpf import bpf_elf
from kernel_matrix.shared.bpf.object_table import ObjectTable
from kernel_matrix.shared.project import build_folder

if TYPE_CHECKING:
    from scapy.packet import Packet

__all__ = ["Attach", "Attached", "Child", "Events", "MapView", "Traffic", "Veth"]


class Attach(Protocol):
    """The fixture ``attached``."""

    def __call__(self, path: str, *programs: str, xdp: Literal["native", "generic"] = "native") -> Attached:
        """Load an object anew and attach programs of it until the test ends: these, or all not called by others.

        ``path``: relative to the project, or the file's name alone. Raises StepError where the kernel refuses,
        Undeclared where the table lacks what only its loader knows, FileNotFoundError.
        """


class Traffic:
    """What a test does while its object is attached."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def send(self, frame: Packet | bytes | str, times: int = 1, *, cpu: int = 0) -> None:
        """Send a frame, or one in scapy's notation, into the interface; XDP and tc have run when it returns.

        Raises TimeoutError when one was lost on the way, FrameError for a notation that scapy cannot build.
        """
        # takes seconds to import in a guest
        from kernel_matrix.guest.system import frames

        pair = self._place.veth
        data = frames.built(frame, pair.near.mac, pair.far.mac) if isinstance(frame, str) else frame
        frames.send(pair, data, times, cpu=cpu)

    def run(self, command: str) -> Child:
        """Run a program by one exec, without a shell; return its pid and exit status."""
        from kernel_matrix.guest.bpf.foreign.scenarios import stimulus

        return stimulus.run(command, self._place)

    def connect(self, address: str, *, protocol: Literal["tcp", "udp"] = "tcp") -> Child:
        """Connect a process's socket to ``HOST:PORT``; return its pid, and as its status 0 or the errno."""
        from kernel_matrix.guest.bpf.foreign.scenarios import stimulus

        return stimulus.connect(address, self._place, protocol)


@pytest.fixture
def object_place() -> Iterator[Place]:
    """Return the targets that objects of a test are attached to; each is made when it is first used."""
    with closing(Place()) as place:
        yield place


@pytest.fixture
def veth(object_place: Place) -> Veth:
    """Return the veth pair whose near end has the test's XDP and tc programs."""
    return object_place.veth


@pytest.fixture
def traffic(object_place: Place) -> Traffic:
    """Return what sends frames into that interface, and runs programs and connects in that cgroup."""
    return Traffic(object_place)


@pytest.fixture
def attached(request: pytest.FixtureRequest, object_place: Place) -> Iterator[Attach]:
    """Return a function that loads an object and attaches its programs until the test ends."""
    facts = request.config.stash.get(GUEST_FACTS, None)
    table = facts.objects if facts else ObjectTable()
    environment.show_configuration()
    with ExitStack() as stack:
        pins = stack.enter_context(environment.bpffs())

        def attach(path: str, *programs: str, xdp: Literal["native", "generic"] = "native") -> Attached:
            file = found(build_folder().parent, path)
            name = str(file.relative_to(build_folder().parent))
            settings, read = table.of(name), bpf_elf.read(file)
            stack.enter_context(kernel_modules.loaded(name, settings.modules or modules.needed(read, settings)))
            foreign = Foreign(file, file.name, read, settings, object_place)
            mode = XdpFlags[xdp.upper()]
            return stack.enter_context(attached_object(foreign, pins, object_place, programs, mode))

        yield attach


def found(root: Path, path: str) -> Path:
    """Return an object's path, by its path or its name; raises FileNotFoundError where it is not the only one."""
    if (root / path).is_file():
        return root / path
    names = (file.relative_to(root) for file in sorted(root.rglob(Path(path).name)) if file.match(path))
    same = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    if len(same) != 1:
        listed = ", ".join(map(str, same)) or "none"
        raise FileNotFoundError(f"{path}: not the name of one file below the project (of that name: {listed})")
    return root / same[0]
