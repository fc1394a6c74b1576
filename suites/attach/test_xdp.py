"""How attaching an XDP program is refused, by netlink and by bpf_link.

The errnos are those of net/core/dev.c: dev_xdp_attach() and dev_xdp_install(), the same code for both
paths, with a few checks of their own in front. Beside each refusal stands the same call succeeding.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.steps import XdpFlags
from kernel_matrix.guest.pytest.marks import refused_without, requires
from kernel_matrix.guest.pytest.refusal import Refused
from suites.attach.conftest import Interfaces

_MODES = [XdpFlags.NATIVE, XdpFlags.GENERIC]

#: The largest MTU of its peer with which veth takes a native program without frags (veth_xdp_set()):
#: a page, less XDP_PACKET_HEADROOM (256), the Ethernet header (14) and struct skb_shared_info (320).
_LARGEST_MTU = 4096 - 256 - 14 - 320


def _set_mtu(ifindex: int, mtu: int) -> None:
    with IPRoute() as netlink:
        netlink.link("set", index=ifindex, mtu=mtu)


def test_netlink_names_a_missing_interface(refused: Refused, interfaces: Interfaces, xdp: steps.Program) -> None:
    """rtnl_setlink() looks the interface up first: ENODEV."""
    with refused(errno.ENODEV, stage="attach"):
        steps.xdp_attach(xdp.fd, interfaces.missing)
    steps.xdp_attach(xdp.fd, interfaces.end)


@requires("xdp_link")
def test_a_link_does_not_name_a_missing_interface(refused: Refused, interfaces: Interfaces, xdp: steps.Program) -> None:
    """bpf_xdp_link_attach() says EINVAL where netlink says ENODEV."""
    with refused(errno.EINVAL, stage="attach"), steps.xdp_link(xdp, interfaces.missing):
        pass
    with steps.xdp_link(xdp, interfaces.end):
        assert steps.xdp_id(interfaces.end) != 0


@pytest.mark.parametrize("mode", [XdpFlags.NATIVE, XdpFlags.OFFLOAD])
def test_loopback_has_the_generic_mode_only(
    refused: Refused, interfaces: Interfaces, xdp: steps.Program, mode: XdpFlags
) -> None:
    """No ndo_bpf: dev_xdp_attach() answers EOPNOTSUPP for the modes that a driver implements."""
    with refused(errno.EOPNOTSUPP, stage="attach"):
        steps.xdp_attach(xdp.fd, interfaces.lo, mode)
    steps.xdp_attach(xdp.fd, interfaces.lo, XdpFlags.GENERIC)


def test_veth_cannot_offload(refused: Refused, interfaces: Interfaces, xdp: steps.Program) -> None:
    """The driver has ndo_bpf, so it is asked: veth_xdp() answers EINVAL to XDP_SETUP_PROG_HW."""
    with refused(errno.EINVAL, stage="attach"):
        steps.xdp_attach(xdp.fd, interfaces.end, XdpFlags.OFFLOAD)
    steps.xdp_attach(xdp.fd, interfaces.end, XdpFlags.NATIVE)


def test_two_modes_in_one_request(refused: Refused, interfaces: Interfaces, xdp: steps.Program) -> None:
    """do_setlink() (IFLA_XDP) takes one mode: EINVAL; each alone works."""
    with refused(errno.EINVAL, stage="attach"):
        steps.xdp_attach(xdp.fd, interfaces.end, XdpFlags.NATIVE | XdpFlags.GENERIC)
    for mode in _MODES:
        steps.xdp_attach(xdp.fd, interfaces.end, mode)
        steps.xdp_detach(interfaces.end, mode)


@pytest.mark.parametrize("mode", _MODES)
def test_a_second_program_where_none_may_be(
    refused: Refused, interfaces: Interfaces, xdp: steps.Program, other_xdp: steps.Program, mode: XdpFlags
) -> None:
    """UPDATE_IF_NOEXIST: EBUSY, and the first program stays; without the flag it is replaced."""
    steps.xdp_attach(xdp.fd, interfaces.end, mode | XdpFlags.UPDATE_IF_NOEXIST)
    first = steps.xdp_id(interfaces.end, mode)
    with refused(errno.EBUSY, stage="attach"):
        steps.xdp_attach(other_xdp.fd, interfaces.end, mode | XdpFlags.UPDATE_IF_NOEXIST)
    assert steps.xdp_id(interfaces.end, mode) == first
    steps.xdp_attach(other_xdp.fd, interfaces.end, mode)
    assert steps.xdp_id(interfaces.end, mode) not in {0, first}


@pytest.mark.parametrize(("first", "second"), [_MODES, _MODES[::-1]])
def test_a_second_program_in_the_other_mode(
    refused: Refused,
    interfaces: Interfaces,
    xdp: steps.Program,
    other_xdp: steps.Program,
    first: XdpFlags,
    second: XdpFlags,
) -> None:
    """Native and generic exclude each other: EEXIST, until the first is gone."""
    steps.xdp_attach(xdp.fd, interfaces.end, first)
    with refused(errno.EEXIST, stage="attach"):
        steps.xdp_attach(other_xdp.fd, interfaces.end, second)
    steps.xdp_detach(interfaces.end, first)
    steps.xdp_attach(other_xdp.fd, interfaces.end, second)


def test_replacing_another_program_than_expected(
    refused: Refused, interfaces: Interfaces, xdp: steps.Program, other_xdp: steps.Program
) -> None:
    """XDP_FLAGS_REPLACE with the wrong old program: EEXIST, and nothing changes; with the right one it works."""
    flags = XdpFlags.NATIVE | XdpFlags.REPLACE
    steps.xdp_attach(xdp.fd, interfaces.end, XdpFlags.NATIVE)
    first = steps.xdp_id(interfaces.end)
    with refused(errno.EEXIST, stage="attach"):
        steps.xdp_attach(other_xdp.fd, interfaces.end, flags, replacing=other_xdp.fd)
    assert steps.xdp_id(interfaces.end) == first
    steps.xdp_attach(other_xdp.fd, interfaces.end, flags, replacing=xdp.fd)
    assert steps.xdp_id(interfaces.end) not in {0, first}


@requires("xdp_link")
@pytest.mark.parametrize(
    ("flags", "refused_errno"),
    [
        (XdpFlags.NONE, errno.EBUSY),
        (XdpFlags.NATIVE, errno.EBUSY),
        # the check for the other mode comes before the one for a link
        (XdpFlags.GENERIC, errno.EEXIST),
    ],
)
def test_netlink_cannot_replace_a_link(
    refused: Refused,
    interfaces: Interfaces,
    xdp: steps.Program,
    other_xdp: steps.Program,
    flags: XdpFlags,
    refused_errno: int,
) -> None:
    """A link keeps its interface: EBUSY; when the link is gone, the same call works."""
    with steps.xdp_link(xdp, interfaces.end):
        linked = steps.xdp_id(interfaces.end)
        with refused(refused_errno, stage="attach"):
            steps.xdp_attach(other_xdp.fd, interfaces.end, flags)
        assert steps.xdp_id(interfaces.end) == linked
    steps.xdp_attach(other_xdp.fd, interfaces.end, flags)


@requires("xdp_link")
def test_netlink_cannot_detach_a_link(refused: Refused, interfaces: Interfaces, xdp: steps.Program) -> None:
    """EBUSY, and the program stays until its link is destroyed."""
    with steps.xdp_link(xdp, interfaces.end):
        with refused(errno.EBUSY, stage="detach"):
            steps.xdp_detach(interfaces.end)
        assert steps.xdp_id(interfaces.end) != 0
    assert steps.xdp_id(interfaces.end) == 0


@requires("xdp_link")
@pytest.mark.parametrize("by_link", [True, False], ids=["over a link", "over netlink"])
def test_a_link_does_not_replace(
    refused: Refused, interfaces: Interfaces, xdp: steps.Program, other_xdp: steps.Program, *, by_link: bool
) -> None:
    """A second link is refused with EBUSY whichever way the first program came, until it is gone."""
    with ExitStack() as first:
        if by_link:
            first.enter_context(steps.xdp_link(xdp, interfaces.end))
        else:
            steps.xdp_attach(xdp.fd, interfaces.end)
            first.callback(steps.xdp_detach, interfaces.end)
        with refused(errno.EBUSY, stage="attach"), steps.xdp_link(other_xdp, interfaces.end):
            pass
    with steps.xdp_link(other_xdp, interfaces.end):
        assert steps.xdp_id(interfaces.end) != 0


@pytest.mark.parametrize(("attached", "detached"), [_MODES, _MODES[::-1], (XdpFlags.GENERIC, XdpFlags.NONE)])
def test_detaching_in_the_wrong_mode_silently_does_nothing(
    interfaces: Interfaces, xdp: steps.Program, attached: XdpFlags, detached: XdpFlags
) -> None:
    """dev_xdp_attach() finds nothing to remove in that mode and answers 0; no flag means the driver's mode."""
    steps.xdp_attach(xdp.fd, interfaces.end, attached)
    before = steps.xdp_id(interfaces.end, attached)
    steps.xdp_detach(interfaces.end, detached)
    assert steps.xdp_id(interfaces.end, attached) == before != 0
    steps.xdp_detach(interfaces.end, attached)
    assert steps.xdp_id(interfaces.end, attached) == 0


@pytest.mark.parametrize("flags", [XdpFlags.NONE, XdpFlags.NATIVE])
def test_the_peers_mtu_may_be_too_large_for_native_mode(
    refused: Refused, interfaces: Interfaces, xdp: steps.Program, flags: XdpFlags
) -> None:
    """One byte past the limit: ERANGE, without a mode flag too; at the limit, and in generic mode, it attaches."""
    _set_mtu(interfaces.peer, _LARGEST_MTU + 1)
    with refused(errno.ERANGE, stage="attach"):
        steps.xdp_attach(xdp.fd, interfaces.end, flags)
    steps.xdp_attach(xdp.fd, interfaces.end, XdpFlags.GENERIC)
    steps.xdp_detach(interfaces.end, XdpFlags.GENERIC)
    _set_mtu(interfaces.peer, _LARGEST_MTU)
    steps.xdp_attach(xdp.fd, interfaces.end, flags)


@refused_without("xdp_frags", errno.EINVAL, stage="load")
def test_a_frags_program_lifts_the_mtu_limit(interfaces: Interfaces) -> None:
    """A kernel without frags refuses the flag at load (bpf_prog_load(): EINVAL)."""
    _set_mtu(interfaces.peer, 9000)
    with steps.loaded(steps.object_path("engine/probes"), "probe_xdp_frags") as frags:
        steps.xdp_attach(frags.programs["probe_xdp_frags"].fd, interfaces.end, XdpFlags.NATIVE)
        assert steps.xdp_id(interfaces.end, XdpFlags.NATIVE) != 0


@pytest.mark.parametrize("kind", ["fixture_socket", "fixture_kprobe", "fixture_tracepoint"])
@pytest.mark.parametrize("by_link", [True, False], ids=["link", "netlink"])
def test_a_program_of_another_type(
    refused: Refused,
    interfaces: Interfaces,
    programs: dict[str, steps.Program],
    kind: str,
    *,
    by_link: bool,
) -> None:
    """bpf_prog_get_type_dev() and link_create() compare types: EINVAL; an XDP program attaches both ways."""
    with refused(errno.EINVAL, stage="attach"):
        _attach(programs[kind], interfaces.end, by_link=by_link)
    _attach(programs["fixture_xdp"], interfaces.end, by_link=by_link)


def _attach(program: steps.Program, ifindex: int, *, by_link: bool) -> None:
    if by_link:
        with steps.xdp_link(program, ifindex):
            assert steps.xdp_id(ifindex) != 0
    else:
        steps.xdp_attach(program.fd, ifindex)


def test_a_file_that_is_no_program(refused: Refused, interfaces: Interfaces, xdp: steps.Program) -> None:
    """____bpf_prog_get() looks at the file: EINVAL when it is another, EBADF when there is none."""
    # far above what netlink's own socket takes, so that the number stays free once it is closed
    number = fcntl.fcntl(xdp.fd, fcntl.F_DUPFD_CLOEXEC, 512)
    steps.xdp_attach(number, interfaces.end)
    with Path(os.devnull).open() as file:
        os.dup2(file.fileno(), number, inheritable=False)
        with refused(errno.EINVAL, stage="attach"):
            steps.xdp_attach(number, interfaces.end)
    os.close(number)
    with refused(errno.EBADF, stage="attach"):
        steps.xdp_attach(number, interfaces.end)
