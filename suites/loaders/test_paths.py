"""The path that each loader takes into the kernel, as the kernel shows it."""

from __future__ import annotations

import pytest

from kernel_matrix.guest.bpf.loaders import Loader, Object
from kernel_matrix.guest.bpf.steps import XdpFlags, xdp_id
from kernel_matrix.guest.pytest.fixtures import Observed
from kernel_matrix.guest.pytest.marks import GUEST_FACTS
from kernel_matrix.guest.system.netns import Veth
from suites.loaders.conftest import Seen, seen

#: the loaders that put XDP programs onto interfaces with a bpf_link; the others send netlink messages.
#: aya 0.14: Xdp::attach_to_if_index makes a link and falls back to netlink on EINVAL; cilium/ebpf: AttachXDP makes a
#: link. libbpf has both, and this project's wrapper calls bpf_xdp_attach; bcc: bpf_attach_xdp (libbpf.c) is netlink
XDP_BY_LINK = {"aya", "cilium"}
#: libbpf, aya and cilium/ebpf attach to perf events with a perf link where the kernel has them, else with the ioctl
#: PERF_EVENT_IOC_SET_BPF; bcc always with the ioctl (libbpf.c, bpf_attach_tracing_event)
PERF_LINKS = {"libbpf", "aya", "cilium"}
_MODES = {XdpFlags.NONE: "without a mode", XdpFlags.NATIVE: "native", XdpFlags.GENERIC: "generic"}


@pytest.fixture
def perf_link(request: pytest.FixtureRequest, loader: Loader) -> tuple[str, ...]:
    """Return the types of the links that the loader makes for a perf event on this kernel.

    Perf links and BPF cookies came with the same release (5.15; b89fbfbb854c and 82e6b1eee6a8).
    """
    has_links = "bpf_cookie" in request.config.stash[GUEST_FACTS].features
    return ("perf_event",) if has_links and loader.name in PERF_LINKS else ()


@pytest.fixture
def shown(loader: Loader, perf_link: tuple[str, ...]) -> bool:
    """Return whether the kernel names the perf event of an attachment (BPF_TASK_FD_QUERY, ``bpftool perf``).

    It is asked about a file descriptor of the event. aya closes it where a link holds the event
    (aya/src/programs/perf_attach.rs), so on such kernels nothing shows what an aya program is attached to.
    """
    return not (loader.name == "aya" and perf_link)


def _observe(kind: str, now: Seen, observed: Observed) -> None:
    """Observe how a probe is attached, and whether the kernel names it."""
    observed(f"path: {kind}", now.path)
    observed(f"path: {kind} in `bpftool perf`", "yes" if now.events else "no")


def test_nothing_is_attached_by_loading(loaded: Object, loader: Loader, observed: Observed) -> None:
    """Loading is not attaching, for any loader."""
    observed("version", loader.version)
    assert loaded.map("numbers").get(0) == bytes(8)
    assert seen() == Seen((), (), ())


def test_a_kprobe_is_a_perf_event(
    loaded: Object,
    perf_link: tuple[str, ...],
    shown: bool,  # noqa: FBT001 - a fixture
    observed: Observed,
) -> None:
    """Not a probe of tracefs, which every kernel here could do without since 4.17 (e12f03d7031a)."""
    with loaded.attach_kprobe("loaders_kprobe", "__x64_sys_getpgid"):
        now = seen()
        assert now == Seen(perf_link, ("kprobe __x64_sys_getpgid",) if shown else (), ())
        _observe("kprobe", now, observed)
    assert seen() == Seen((), (), ())


def test_a_tracepoint_is_a_perf_event(
    loaded: Object,
    perf_link: tuple[str, ...],
    shown: bool,  # noqa: FBT001 - a fixture
    observed: Observed,
) -> None:
    """By its number in tracefs."""
    with loaded.attach_tracepoint("loaders_tracepoint", "syscalls", "sys_enter_getpgid"):
        now = seen()
        assert now == Seen(perf_link, ("tracepoint sys_enter_getpgid",) if shown else (), ())
        _observe("tracepoint", now, observed)
    assert seen() == Seen((), (), ())


@pytest.mark.parametrize(
    ("mode", "place"),
    [
        # the driver of veth knows XDP, so without a mode the kernel chooses native (net/core/dev.c, dev_xdp_mode())
        (XdpFlags.NONE, XdpFlags.NATIVE),
        (XdpFlags.NATIVE, XdpFlags.NATIVE),
        (XdpFlags.GENERIC, XdpFlags.GENERIC),
    ],
    ids=["default", "native", "generic"],
)
def test_an_interface_has_a_link_or_a_program(
    mode: XdpFlags, place: XdpFlags, loaded: Object, loader: Loader, pair: Veth, observed: Observed
) -> None:
    """A link, or none; and the mode that netlink reports is the one asked for."""
    near = pair.near
    with near.namespace.entered(), loaded.attach_xdp("loaders_xdp", near.index, mode):
        links = seen().links
        assert links == (("xdp",) if loader.name in XDP_BY_LINK else ())
        other = XdpFlags.GENERIC if place is XdpFlags.NATIVE else XdpFlags.NATIVE
        assert xdp_id(near.index, place)
        assert not xdp_id(near.index, other)
        observed(f"path: XDP {_MODES[mode]}", f"{'link' if links else 'netlink'}, {_MODES[place]}")
    with near.namespace.entered():
        assert xdp_id(near.index) == 0
