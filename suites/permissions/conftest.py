"""What the permission tests share: the shipped objects, loaded, and sysctls that are put back."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from pyroute2 import IPRoute

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.pytest.refusal import refused
from kernel_matrix.guest.system.netns import namespace

__all__ = ["refused"]

#: object, and the programs of it (all, when none is named)
Load = Callable[..., steps.Loaded]


@pytest.fixture
def load() -> Iterator[Load]:
    """Give a function that loads programs of an object, with every capability; the test's end unloads them."""
    with ExitStack() as objects:
        yield lambda name, *programs: objects.enter_context(steps.loaded(steps.object_path(name), *programs))


@pytest.fixture
def interface() -> Iterator[int]:
    """Make a network namespace with a veth pair in it, be there, and give the index of one end."""
    with namespace() as place, place.entered():
        with IPRoute() as netlink:
            netlink.link("add", ifname="end", kind="veth", peer={"ifname": "peer"})
            index = socket.if_nametoindex("end")
            netlink.link("set", index=index, state="up")
        yield index
