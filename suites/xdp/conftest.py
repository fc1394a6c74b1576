"""The packet counter on an interface of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf.loaders import Loader, Object
from kernel_matrix.guest.bpf.steps import XdpFlags, object_path
from kernel_matrix.guest.pytest.marks import not_with, requires_object
from kernel_matrix.guest.pytest.refusal import refused
from kernel_matrix.guest.system.deadline import wait_until
from kernel_matrix.guest.system.netns import Interface, Veth, veth

__all__ = ["refused"]

PROGRAM = "xdp_packet_counter"


@dataclass(frozen=True, slots=True)
class Counters:
    """``struct xdp_counters``."""

    packets: int = 0
    bytes: int = 0
    ipv4: int = 0
    ipv6: int = 0

    def __add__(self, other: Counters) -> Counters:
        return Counters(
            self.packets + other.packets, self.bytes + other.bytes, self.ipv4 + other.ipv4, self.ipv6 + other.ipv6
        )

    def __sub__(self, other: Counters) -> Counters:
        return Counters(
            self.packets - other.packets, self.bytes - other.bytes, self.ipv4 - other.ipv4, self.ipv6 - other.ipv6
        )


class Attached:
    """The packet counter, loaded, and attached to one interface; it counts from then on."""

    def __init__(self, obj: Object, interface: Interface, mode: XdpFlags) -> None:
        self.object = obj
        self._layout = obj.layout("xdp_counters", Counters)
        self._map = obj.map("counters")
        self._interface = interface
        self._mode = mode
        self._before = self._since_loaded()
        self._links = self._attach()

    def _attach(self) -> ExitStack:
        with self._interface.namespace.entered():
            return self.object.attach_xdp(PROGRAM, self._interface.index, self._mode)

    def each_cpu(self) -> tuple[Counters, ...]:
        """Return what each processor has counted."""
        return tuple(now - before for now, before in zip(self._since_loaded(), self._before, strict=True))

    def _since_loaded(self) -> tuple[Counters, ...]:
        return tuple(self._layout.decode(value) for value in self._map.get_each_cpu(0))

    def counters(self, packets: int = 0) -> Counters:
        """Return the sum over all processors, once at least that many packets are counted."""

        def total() -> Counters:
            return sum(self.each_cpu(), Counters())

        wait_until(lambda: total().packets >= packets, f"{packets} packets counted", seconds=5)
        return total()

    def detach(self) -> None:
        """Take it off the interface; the counters stay."""
        with self._interface.namespace.entered():
            self._links.close()

    def attach(self) -> None:
        """Put it onto the interface again."""
        self._links = self._attach()


@contextmanager
def attached(obj: Object, interface: Interface, mode: XdpFlags) -> Iterator[Attached]:
    """Attach a loaded counter."""
    counter = Attached(obj, interface, mode)
    try:
        yield counter
    finally:
        counter.detach()


#: the counter in C, and once more in Rust with aya-ebpf (bpf/rust)
_COMPILED = [
    pytest.param(PROGRAM, id="c"),
    pytest.param(
        f"rust/{PROGRAM}",
        id="rust",
        marks=[
            requires_object(f"rust/{PROGRAM}"),
            not_with("bcc", reason="bcc compiles C by itself and takes no object"),
        ],
    ),
]


@pytest.fixture(scope="module", params=_COMPILED)
def compiled(request: pytest.FixtureRequest) -> Path:
    """Return the counter's object, compiled from one of its sources."""
    return object_path(request.param)


@pytest.fixture(scope="module")
def loaded(loader: Loader, compiled: Path) -> Iterator[Object]:
    """Return the loaded counter, which all tests of a file share."""
    with loader.opened(compiled) as obj:
        yield obj


@pytest.fixture(params=[XdpFlags.NATIVE, XdpFlags.GENERIC], ids=["native", "generic"])
def mode(request: pytest.FixtureRequest) -> XdpFlags:
    """Run a test in native and in generic mode: in the driver, and in the stack."""
    flags: XdpFlags = request.param
    return flags


@pytest.fixture
def pair() -> Iterator[Veth]:
    """Return a veth pair; the counter sits on its near end."""
    with veth() as made:
        yield made


@pytest.fixture
def xdp(loaded: Object, pair: Veth, mode: XdpFlags) -> Iterator[Attached]:
    """Return the counter on the near end of the pair."""
    with attached(loaded, pair.near, mode) as counter:
        yield counter


@pytest.fixture
def attach(loader: Loader, compiled: Path, mode: XdpFlags) -> Iterator[Callable[[Interface], Attached]]:
    """Return what loads and attaches further counters."""
    with ExitStack() as stack:

        def load_and_attach(interface: Interface) -> Attached:
            obj = stack.enter_context(loader.opened(compiled))
            return stack.enter_context(attached(obj, interface, mode))

        yield load_and_attach
