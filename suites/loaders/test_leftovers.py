"""What each loader leaves in the kernel when it ends, and when it is killed."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack

import pytest

from kernel_matrix.guest.bpf.loaders import Loader, Object
from kernel_matrix.guest.bpf.steps import XdpFlags, xdp_detach, xdp_id
from kernel_matrix.guest.pytest.fixtures import Observed
from kernel_matrix.guest.pytest.marks import not_with
from kernel_matrix.guest.system.deadline import wait_until
from kernel_matrix.guest.system.netns import Veth
from suites.loaders.conftest import END, FIXTURE, holding, seen
from suites.loaders.test_paths import XDP_BY_LINK

_TRACEPOINT = ("loaders_tracepoint", "syscalls", "sys_enter_getpgid")
_ENDS = {
    signal.SIGKILL: "killed (SIGKILL)",
    signal.SIGTERM: "terminated (SIGTERM)",
    signal.SIGABRT: "aborted (SIGABRT)",
    END: "exits without detaching",
}


def _everything(obj: Object, pair: Veth) -> ExitStack:
    """Attach a program of each type."""
    links = ExitStack()
    links.enter_context(obj.attach_kprobe("loaders_kprobe", "__x64_sys_getpgid"))
    links.enter_context(obj.attach_tracepoint(*_TRACEPOINT))
    with pair.near.namespace.entered():
        links.enter_context(obj.attach_xdp("loaders_xdp", pair.near.index, XdpFlags.NONE))
    return links


def _probes() -> int:
    """Return the number of perf events with programs: by their links, where there are links."""
    now = seen()
    return now.links.count("perf_event") or len(now.events)


def _on_the_interface(pair: Veth) -> bool:
    with pair.near.namespace.entered():
        return bool(xdp_id(pair.near.index))


def _left(pair: Veth) -> str:
    """Return what is attached, in words."""
    left = ["probes"] if _probes() else []
    return " and ".join([*left, *(["the XDP program"] if _on_the_interface(pair) else [])]) or "nothing"


def test_nothing_is_left_of_a_loader_that_detaches(loader: Loader, pair: Veth, observed: Observed) -> None:
    """All are gone when their links are closed, in any order; the object may go on."""
    with loader.opened(FIXTURE) as obj:
        links = _everything(obj, pair)
        assert _probes() == 2
        with pair.near.namespace.entered():
            links.close()
        assert (_probes(), seen().links, _on_the_interface(pair)) == (0, (), False)
        assert obj.map("numbers").get(1) == bytes(8)
        observed("left: after it has detached", _left(pair))


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        signal.SIGTERM,
        signal.SIGABRT,
        pytest.param(
            END, marks=not_with("bcc", reason="its Python module has handlers for the end, which a fork skips")
        ),
    ],
    ids=["KILL", "TERM", "ABRT", "exit"],
)
def test_a_loader_that_ends_leaves_what_netlink_attached(
    number: signal.Signals, loader: Loader, pair: Veth, observed: Observed
) -> None:
    """Links and perf events are file descriptors, which the kernel closes.

    A program that netlink put onto an interface belongs to the interface, and stays until somebody takes it off. An
    abort is how a panic ends. A loader that exits without detaching leaves the same: a program's process detaches what
    it knows of when its input ends, and libbpf does nothing at a process's end.
    """
    with holding(loader.name, lambda obj: _everything(obj, pair)) as held:
        assert _probes() == 2
        assert _on_the_interface(pair)
        os.kill(held.pid if number is END else held.loader, number)
        wait_until(lambda: not _probes(), "the perf events' end")
        stays = loader.name not in XDP_BY_LINK
        if not stays:
            wait_until(lambda: not _on_the_interface(pair), "the link's end")
        assert (_on_the_interface(pair), seen().links) == (stays, ())
        observed(f"left: {_ENDS[number]}", _left(pair))
    if stays:
        with pair.near.namespace.entered():
            xdp_detach(pair.near.index)
