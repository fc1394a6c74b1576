"""What is done while an object is attached: frames, programs, connects, where its programs see them."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import socket

from kernel_matrix.guest.bpf.foreign.hooks.place import Place
from kernel_matrix.guest.bpf.step_error import errno_name
from kernel_matrix.guest.system import frames
from kernel_matrix.guest.system.execs import Child, in_child
from kernel_matrix.guest.system.upkeep import child
from kernel_matrix.shared.bpf.scenario import Step

#: how a connect without an errno is named
_WORKS = "works"
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class StimulusError(Exception):
    """What was to be done went otherwise; the text is one line."""


def do(step: Step, place: Place) -> int:
    """Do a step as often as it says; return the last process's id, 0 where there is none.

    Raises StimulusError, FrameError, TimeoutError.
    """
    if step.act == "send":
        frame = frames.built(step.what, place.veth.near.mac, place.veth.far.mac)
        frames.send(place.veth, frame, step.times, cpu=step.cpu)
        return 0
    pid = 0
    for _ in range(step.times):
        done = run(step.what, place) if step.act == "run" else connect(step.what, place, step.protocol)
        pid = done.pid
        if step.act == "run" and done.status != step.status:
            raise StimulusError(f"{step.what}: exit status {done.status}, expected {step.status}")
        if step.act == "connect":
            ended = errno_name(done.status) if done.status else _WORKS
            if ended != (step.errno or _WORKS):
                raise StimulusError(f"connect to {step.what}: {ended}, expected: {step.errno or _WORKS}")
    return pid


def run(command: str, place: Place) -> Child:
    """Run a program in the namespace and cgroup of the place, by one exec; return how it ended.

    Raises StimulusError where the guest lacks it.
    """
    words = shlex.split(command)
    environment = child.environment()
    path = shutil.which(words[0], path=environment["PATH"])
    if path is None:
        raise StimulusError(f"{command}: the guest has no program {words[0]}")
    with place.entered():

        def execute() -> None:
            place.join_cgroup()
            os.execve(path, words, environment)  # noqa: S606 - by one exec, which is observed

        return in_child(execute)


def connect(address: str, place: Place, protocol: str = "tcp") -> Child:
    """Connect a socket to ``HOST:PORT`` in the namespace and cgroup of the place; return how it ended.

    Its status is 0, or the errno. Something listens at the address if it is one of this machine.
    """
    host, _, port = address.rpartition(":")
    target = (host.strip("[]"), int(port))
    family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
    with place.entered(), socket.socket(family, _KINDS[protocol]) as listener:
        if _is_here(listener, target) and protocol == "tcp":
            listener.listen(1)

        def reach() -> None:
            place.join_cgroup()
            with socket.socket(family, _KINDS[protocol]) as own:
                own.connect(target)

        return in_child(reach)


def _is_here(listener: socket.socket, target: tuple[str, int]) -> bool:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(target)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        return False
    return True
