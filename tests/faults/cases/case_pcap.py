"""Tests with packets, counted by the XDP program or not, that pass and that fail."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1Q, Ether

from kernel_matrix.guest.system import traffic
from kernel_matrix.guest.system.deadline import wait_until
from kernel_matrix.guest.system.netns import Veth, veth


@pytest.fixture
def pair() -> Iterator[Veth]:
    """Return a pair of interfaces."""
    with veth() as made:
        yield made


def test_passes(pair: Veth) -> None:
    """Nothing of it is kept."""
    traffic.send(pair.far, Ether() / IP(), 2)


def test_fails(pair: Veth) -> None:
    """Three frames one way, a tagged one the other way."""
    traffic.send(pair.far, Ether() / IP() / UDP(dport=7), 3)
    traffic.send(pair.near, Ether() / Dot1Q(vlan=7) / IP(), 1)
    assert pair is None


def test_fails_after_its_link_was_down(pair: Veth) -> None:
    """A frame before and one after."""
    traffic.send(pair.far, Ether() / IP(), 1)
    with pair.near.namespace.entered():
        for state in ("down", "up"):
            subprocess.run(["ip", "link", "set", pair.near.name, state], check=True)
    wait_until(lambda: _carrier(pair), "carrier")
    traffic.send(pair.far, Ether() / IP(), 1)
    assert pair is None


def _carrier(pair: Veth) -> bool:
    with pair.far.namespace.entered():
        shown = subprocess.run(["ip", "-o", "link", "show", pair.far.name], capture_output=True, text=True, check=True)
    return "LOWER_UP" in shown.stdout


def test_fails_within_its_pair() -> None:
    """One frame over a pair that is gone when the failure is reported."""
    with veth() as made:
        traffic.send(made.far, Ether() / IP(), 1)
        raise AssertionError
