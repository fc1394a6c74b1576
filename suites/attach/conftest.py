"""What the attach tests share: programs that do nothing, and a veth pair in a namespace of its own."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from pyroute2 import IPRoute

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.pytest.refusal import refused
from kernel_matrix.guest.system.netns import namespace

__all__ = ["refused"]


@dataclass(frozen=True, slots=True)
class Interfaces:
    """Interface indexes in the test's own network namespace."""

    #: the end of a veth pair that programs are put onto; up, MTU 1500
    end: int
    #: the other end
    peer: int
    lo: int
    #: an index that no interface has
    missing: int


@pytest.fixture
def interfaces() -> Iterator[Interfaces]:
    """Make a network namespace with a veth pair in it, and be there; everything goes away with it."""
    with namespace() as place, place.entered():
        with IPRoute() as netlink:
            netlink.link("add", ifname="end", kind="veth", peer={"ifname": "peer"})
            indexes = {name: index for index, name in socket.if_nameindex()}
            for name in ("end", "peer"):
                netlink.link("set", index=indexes[name], state="up")
        yield Interfaces(indexes["end"], indexes["peer"], indexes["lo"], max(indexes.values()) + 1)


@pytest.fixture
def programs() -> Iterator[dict[str, steps.Program]]:
    """Load one program for each kind of hook."""
    with steps.loaded(steps.object_path("fixtures/attach")) as bpf_object:
        yield bpf_object.programs


@pytest.fixture
def xdp(programs: dict[str, steps.Program]) -> steps.Program:
    """Return an XDP program."""
    return programs["fixture_xdp"]


@pytest.fixture
def other_xdp(programs: dict[str, steps.Program]) -> steps.Program:
    """Return another XDP program."""
    return programs["fixture_xdp_other"]
