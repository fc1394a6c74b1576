"""Tests of the objects beside this file, as a project writes them; the project of the cases has them in tests/."""

from __future__ import annotations

import errno

import pytest

from kernel_matrix.guest.pytest.attached import Attach, Traffic, Veth
from kernel_matrix.guest.system import traffic as frames

FRAME = "Ether()/IP()/UDP(dport=53)/Raw(b'x' * 20)"


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_datagrams_are_counted(attached: Attach, traffic: Traffic, mode: str) -> None:
    """Three frames of 14 + 20 + 8 + 20 bytes, on the processor that they are sent from."""
    obj = attached("counter.bpf.o", "count", xdp="native" if mode == "native" else "generic")
    traffic.send(FRAME, 3, cpu=1)
    protocols = obj.map("protocols")
    assert protocols[17] == {"packets": 3, "bytes": 186}
    assert protocols.each_cpu(17)[1] == {"packets": 3, "bytes": 186}
    assert dict(obj.map("ports")) == {53: 3}
    assert obj.variable("frames") == 3
    obj.detach()
    traffic.send(FRAME, 2)
    assert obj.variable("frames") == 3


def test_a_broken_counter_is_seen(attached: Attach, traffic: Traffic) -> None:
    obj = attached("objects/scenarios/counter_wrong.bpf.o")
    traffic.send(FRAME)
    assert obj.map("protocols")[17]["packets"] == 2
    assert 80 not in obj.map("ports")


def test_an_exec_is_an_event_of_both_buffers(attached: Attach, traffic: Traffic) -> None:
    obj = attached("execs.bpf.o")
    ring, perf = obj.events("ring", "executed"), obj.events("perf", "executed")
    child = traffic.run("true")
    assert child.status == 0
    event = {"pid": child.pid, "uid": 0, "comm": "true"}
    assert ring.wait(1, pid=child.pid) == [event]
    assert perf.wait(1, comm="true") == [event]


def test_a_connect_is_counted_and_refused(attached: Attach, traffic: Traffic) -> None:
    peers = attached("connects.bpf.o").map("peers")
    assert traffic.connect("127.0.0.1:80").status == 0
    assert traffic.connect("127.0.0.1:81").status == errno.EPERM
    assert peers[{"address": "127.0.0.1", "port": 81, "protocol": 6}] == 1
    assert len(peers) == 2


def test_both_directions_are_filtered(attached: Attach, traffic: Traffic, veth: Veth) -> None:
    obj = attached("filter.bpf.o")
    obj.map("rules")[7] = {"dropped": 1, "limit": 100}
    traffic.send(b"\xff" * 12 + b"\x88\xb5" + b"\x07" * 50, 2)
    traffic.send(b"\xff" * 12 + b"\x88\xb5" + b"\x08" * 50, 3)
    frames.send(veth.near, b"\xff" * 12 + b"\x88\xb5" + bytes(46), 4)
    assert dict(obj.map("frames")) == {"IN": 3, "OUT": 4}
