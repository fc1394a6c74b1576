"""Attach a program to a hook in one kernel call each, whatever its type: libbpf would compare the types itself."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_int, c_uint32, c_void_p

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from harness.guest.library import libbpf
from harness.guest.step_error import StepError
from harness.guest.steps import xdp_attach, xdp_detach

# enum bpf_attach_type of linux/bpf.h
CGROUP_INET_INGRESS = 0
XDP = 37
TCX_INGRESS = 46
#: asm-generic/socket.h
_SO_ATTACH_BPF = 50
#: the handle of clsact's ingress filters: TC_H_CLSACT and TC_H_MIN_INGRESS of linux/pkt_sched.h
_INGRESS = 0xFFFFFFF2


def _function(name: str, *arguments: type) -> Callable[..., int]:
    function = getattr(libbpf(), name)
    function.argtypes, function.restype = arguments, c_int
    return lambda *values: int(function(*values))


@contextmanager
def _closed_again(fd: int, what: str) -> Iterator[None]:
    """Close what attaching gave: that detaches."""
    if fd < 0:
        raise StepError(-fd, "attach", what)
    try:
        yield
    finally:
        os.close(fd)


@contextmanager
def on_socket(program: int) -> Iterator[None]:
    """Filter what a socket receives (SO_ATTACH_BPF)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as filtered:
        try:
            filtered.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, program)
        except OSError as error:
            raise StepError(error.errno or 0, "attach", "socket") from error
        yield


@contextmanager
def on_cgroup(program: int, folder: str = "/sys/fs/cgroup") -> Iterator[None]:
    """See what a cgroup's sockets receive (BPF_PROG_ATTACH)."""
    group = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        result = _function("bpf_prog_attach", c_int, c_int, c_int, c_uint32)(program, group, CGROUP_INET_INGRESS, 0)
        if result < 0:
            raise StepError(-result, "attach", f"cgroup {folder}")
        try:
            yield
        finally:
            _function("bpf_prog_detach2", c_int, c_int, c_int)(program, group, CGROUP_INET_INGRESS)
    finally:
        os.close(group)


@contextmanager
def on_classifier(program: int, ifindex: int) -> Iterator[None]:
    """Classify what an interface receives: clsact, and a filter of kind bpf, by netlink."""
    with IPRoute() as netlink:
        netlink.tc("add", "clsact", ifindex)
        try:
            try:
                netlink.tc("add-filter", "bpf", ifindex, ":1", parent=_INGRESS, fd=program, name="hook", classid=1)
            except NetlinkError as error:
                raise StepError(error.code, "attach", f"classifier on {ifindex}") from error
            yield
        finally:
            netlink.tc("del", "clsact", ifindex)


@contextmanager
def on_xdp(program: int, ifindex: int) -> Iterator[None]:
    """Put an XDP program onto an interface by netlink."""
    xdp_attach(program, ifindex)
    try:
        yield
    finally:
        xdp_detach(ifindex)


@contextmanager
def on_link(program: int, ifindex: int, kind: int) -> Iterator[None]:
    """Attach to an interface by a link of this attach type (BPF_LINK_CREATE)."""
    create = _function("bpf_link_create", c_int, c_int, c_int, c_void_p)
    with _closed_again(create(program, ifindex, kind, None), f"link {kind} on {ifindex}"):
        yield


@contextmanager
def on_raw_tracepoint(program: int, name: str | None) -> Iterator[None]:
    """Attach to a tracepoint without tracefs; without a name: to the function that the program was loaded for."""
    opened = _function("bpf_raw_tracepoint_open", ctypes.c_char_p, c_int)
    with _closed_again(opened(name and name.encode(), program), f"raw tracepoint {name}"):
        yield
