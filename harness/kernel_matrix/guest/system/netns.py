"""Create network namespaces for a test, and a veth pair between two of them."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute

from kernel_matrix.guest.system.deadline import wait_until

#: linux/sched.h
_CLONE_NEWNET = 0x40000000
_library = ctypes.CDLL(None, use_errno=True)


def _libc(name: str, *arguments: int) -> None:
    """Call a function of the C library that Python's os has from 3.12 on; raises OSError."""
    if getattr(_library, name)(*arguments):
        raise OSError(ctypes.get_errno(), name)


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace, held by a file descriptor."""

    fd: int

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Enter the namespace for the block; sockets created in the block stay in it."""
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _libc("setns", self.fd, _CLONE_NEWNET)
        try:
            yield
        finally:
            _libc("setns", home, _CLONE_NEWNET)
            os.close(home)


@contextmanager
def namespace(*, ipv6: bool = False) -> Iterator[Namespace]:
    """Create a namespace with ``lo`` up; without ``ipv6``, interfaces in it send no IPv6 packets by themselves."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    _libc("unshare", _CLONE_NEWNET)
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not ipv6:
            # otherwise an interface sends neighbour and router solicitations when it comes up
            for scope in ("all", "default"):
                Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")
        with IPRoute() as netlink:
            netlink.link("set", index=socket.if_nametoindex("lo"), state="up")
    finally:
        _libc("setns", home, _CLONE_NEWNET)
        os.close(home)
    try:
        yield Namespace(own)
    finally:
        os.close(own)


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface in its namespace."""

    namespace: Namespace
    name: str
    index: int
    mac: str


@dataclass(frozen=True, slots=True)
class Veth:
    """A veth pair: one end receives what the other sends."""

    near: Interface
    far: Interface


@contextmanager
def veth(*, mtu: int = 1500, ipv6: bool = False) -> Iterator[Veth]:
    """Create a veth pair, each end up in its own namespace and ready to send."""
    with namespace(ipv6=ipv6) as near, namespace(ipv6=ipv6) as far, _netlink(near) as here, _netlink(far) as there:
        here.link("add", ifname="near", kind="veth", peer={"ifname": "far", "net_ns_fd": far.fd})
        pair = Veth(_up(near, here, "near", mtu), _up(far, there, "far", mtu))
        # as wait_until_it_sends() does, with the open netlink sockets
        _wait_until_up(here, pair.near)
        _wait_until_up(there, pair.far)
        with watch(pair):
            yield pair


def _unwatched(_: Veth) -> AbstractContextManager[None]:
    return nullcontext()


#: a context that is entered while a pair exists; `kernel_matrix.guest.pytest.capture` sets it
watch: Callable[[Veth], AbstractContextManager[None]] = _unwatched


@contextmanager
def _netlink(place: Namespace) -> Iterator[IPRoute]:
    """Open netlink in a namespace; it can be used from any other namespace."""
    with place.entered():
        netlink = IPRoute()
    with netlink:
        yield netlink


def _up(place: Namespace, netlink: IPRoute, name: str, mtu: int) -> Interface:
    link = netlink.link("get", ifname=name)[0]
    netlink.link("set", index=link["index"], mtu=mtu)
    netlink.link("set", index=link["index"], state="up")
    return Interface(place, name, link["index"], link.get_attr("IFLA_ADDRESS"))


def wait_until_it_sends(interface: Interface) -> None:
    """Wait until an interface that is up, and has just got its carrier, sends frames.

    Until then its queue is noop_qdisc, which drops every frame as congestion, so a packet socket gets no error. A
    kernel thread changes this some time after the other end came up: net/core/link_watch.c, linkwatch_do_dev(), sets
    the operational state to "up" and activates the queue under the RTNL lock, under which the state is read here.
    """
    with _netlink(interface.namespace) as netlink:
        _wait_until_up(netlink, interface)


def _wait_until_up(netlink: IPRoute, interface: Interface) -> None:
    def up() -> bool:
        state: str = netlink.link("get", index=interface.index)[0].get_attr("IFLA_OPERSTATE")
        return state == "UP"

    wait_until(up, f"{interface.name} is up and its other end too")


def loopback(place: Namespace) -> Interface:
    """Return a namespace's ``lo``."""
    with place.entered():
        return Interface(place, "lo", socket.if_nametoindex("lo"), "00:00:00:00:00:00")


def address(interface: Interface, *addresses: str) -> None:
    """Add addresses such as ``10.0.0.1/24`` to an interface, usable at once (no duplicate address detection)."""
    with interface.namespace.entered(), IPRoute() as netlink:
        for text in addresses:
            host, _, length = text.partition("/")
            # IFA_F_NODAD
            flags = {"flags": 0x02} if ":" in host else {}
            netlink.addr("add", index=interface.index, address=host, prefixlen=int(length), **flags)
