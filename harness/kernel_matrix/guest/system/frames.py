"""Make frames from scapy's notation, and send them to the end that takes them to the last one."""

from __future__ import annotations

import importlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scapy.packet import Packet

from kernel_matrix.guest.system import traffic
from kernel_matrix.guest.system.deadline import declared, limit, wait_until
from kernel_matrix.guest.system.netns import Veth

#: where the layers are that most frames have; the others are in scapy.all, which takes seconds to import in a guest
_LAYERS = ("scapy.packet", "scapy.layers.l2", "scapy.layers.inet", "scapy.layers.inet6")
_EVERYTHING = "scapy.all"
#: what Python has that a frame may use
_PLAIN = {"bytes": bytes, "range": range}

#: in place of an interface's address where there is none yet
NO_ADDRESS = "00:00:00:00:00:00"


class FrameError(ValueError):
    """A notation that scapy builds no frame of; the text is one line."""


class _Names(Mapping[str, Any]):
    """The names that a frame may use: scapy's, and of the two ends' addresses."""

    def __init__(self, ends: Mapping[str, str]) -> None:
        self._ends = ends

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - a name of scapy's
        for known in (self._ends, _PLAIN):
            if name in known:
                return known[name]
        for module in (*_LAYERS, _EVERYTHING):
            value = getattr(importlib.import_module(module), name, None)
            if value is not None:
                return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ends)

    def __len__(self) -> int:
        return len(self._ends)


def built(notation: str, near: str, far: str) -> bytes:
    """Return the bytes of a frame in scapy's notation; ``near`` and ``far`` are the MAC addresses of the ends.

    An Ethernet header goes from the far end to the near one where the notation does not say otherwise. Raises
    FrameError.
    """
    names = _Names({"near": near, "far": far})
    # of addresses that it looks up; a frame has those that are written, or scapy's default
    logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
    try:
        frame = eval(notation, {"__builtins__": {}}, names)  # noqa: S307 - the project's own table
        if isinstance(frame, bytes):
            return frame
        if not isinstance(frame, Packet):
            raise FrameError(f"frame {notation}: a {type(frame).__name__}, no frame")  # noqa: TRY301
        if frame.name == "Ethernet":
            for field, address in (("src", far), ("dst", near)):
                if field not in frame.fields:
                    setattr(frame, field, address)
        return bytes(frame)
    except FrameError:
        raise
    except Exception as error:
        text = str(error).partition("\n")[0]
        raise FrameError(f"frame {notation}: {type(error).__name__}: {text}") from error


def send(pair: Veth, frame: Packet | bytes, times: int = 1, *, cpu: int = 0) -> None:
    """Send a frame ``times`` times from the far end, from one processor; return when the near end has taken all.

    Then XDP and tc have run for each of them. Raises TimeoutError when one was lost on the way.
    """
    data = bytes(frame)
    left = times
    while left:
        part = min(left, traffic.AT_ONCE)
        before = _received(pair)
        traffic.send(pair.far, data, part, cpu=cpu)
        # with XDP in the driver (drivers/net/veth.c): veth_xdp_rcv() adds a round's frames when all have been through
        # XDP. Without, veth_xmit() adds each when it is in the queue of the processor (enqueue_to_backlog())
        wait_until(lambda: _received(pair) >= before + part, f"{part} frames received")  # noqa: B023
        _wait_for_backlog(pair, cpu)
        left -= part


def _received(pair: Veth) -> int:
    """Return how many frames the near end has received."""
    with pair.near.namespace.entered():
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    fields = next(line.split() for line in lines if line.lstrip().startswith(f"{pair.near.name}:"))
    return int(fields[2])


def _wait_for_backlog(pair: Veth, cpu: int) -> None:
    """Wait until a processor has taken what is in its queue of received frames.

    The queue is in order, and one for all namespaces (net/core/dev.c, process_backlog()): a datagram of our own behind
    the frames, through the loopback device of the far end's namespace, arrives when they have been taken.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        with pair.far.namespace.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own, declared():
            own.bind(("127.0.0.1", 0))
            own.settimeout(limit(5))
            own.sendto(b"x", own.getsockname())
            own.recv(1)
    finally:
        os.sched_setaffinity(0, before)
