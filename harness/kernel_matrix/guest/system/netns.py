"""Network namespaces of a test's own, and a veth pair between two of them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute

from kernel_matrix.guest.system.deadline import wait_until


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace, held by a file descriptor."""

    fd: int

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be in the namespace; sockets made here stay in it."""
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        os.setns(self.fd, os.CLONE_NEWNET)
        try:
            yield
        finally:
            os.setns(home, os.CLONE_NEWNET)
            os.close(home)


@contextmanager
def namespace(*, ipv6: bool = False) -> Iterator[Namespace]:
    """Make a namespace with ``lo`` up; without ``ipv6`` no interface in it speaks IPv6 by itself."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    os.unshare(os.CLONE_NEWNET)
    made = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not ipv6:
            # otherwise an interface that comes up sends neighbour and router solicitations of its own
            for which in ("all", "default"):
                Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6").write_text("1")
        with IPRoute() as netlink:
            netlink.link("set", index=socket.if_nametoindex("lo"), state="up")
    finally:
        os.setns(home, os.CLONE_NEWNET)
        os.close(home)
    try:
        yield Namespace(made)
    finally:
        os.close(made)


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface in its namespace."""

    namespace: Namespace
    name: str
    index: int
    mac: str


@dataclass(frozen=True, slots=True)
class Veth:
    """A pair: what one end sends, the other receives."""

    near: Interface
    far: Interface


@contextmanager
def veth(*, mtu: int = 1500, ipv6: bool = False) -> Iterator[Veth]:
    """Make a veth pair, each end up in a namespace of its own, ready to send."""
    with namespace(ipv6=ipv6) as near, namespace(ipv6=ipv6) as far, _netlink(near) as here, _netlink(far) as there:
        here.link("add", ifname="near", kind="veth", peer={"ifname": "far", "net_ns_fd": far.fd})
        pair = Veth(_up(near, here, "near", mtu), _up(far, there, "far", mtu))
        # as wait_until_it_sends() does, with what is open already
        _wait_until_up(here, pair.near)
        _wait_until_up(there, pair.far)
        with watch(pair):
            yield pair


def _unwatched(_: Veth) -> AbstractContextManager[None]:
    return nullcontext()


#: entered for as long as a pair exists; `kernel_matrix.guest.pytest.capture` sets it
watch: Callable[[Veth], AbstractContextManager[None]] = _unwatched


@contextmanager
def _netlink(place: Namespace) -> Iterator[IPRoute]:
    """Open netlink in a namespace, for use from anywhere."""
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
    """Wait until an interface that is up, and has just got its carrier, sends what it is given.

    Until then its queue is noop_qdisc, which drops every frame and calls that congestion: a packet socket hears of no
    error. A kernel thread puts that right some time after the other end came up: net/core/link_watch.c,
    linkwatch_do_dev(), which makes the operational state "up" and activates the queue under the lock under which we
    read (RTNL).
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
    """Give an interface addresses such as ``10.0.0.1/24``, usable at once (no duplicate address detection)."""
    with interface.namespace.entered(), IPRoute() as netlink:
        for each in addresses:
            host, _, length = each.partition("/")
            # IFA_F_NODAD
            flags = {"flags": 0x02} if ":" in host else {}
            netlink.addr("add", index=interface.index, address=host, prefixlen=int(length), **flags)
