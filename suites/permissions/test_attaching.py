"""Which capabilities attaching takes: with a program that a privileged process loaded and handed down.

Loading and attaching are separate: each has needs of its own, and so has each path to the same hook.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.pytest.fixtures import Sysctl
from kernel_matrix.guest.pytest.marks import refused_without, requires
from kernel_matrix.guest.pytest.refusal import Refused
from kernel_matrix.guest.system.privilege import NOBODY, Cap, run_as
from suites.permissions.conftest import Load

_ALL = frozenset(Cap)


@pytest.fixture
def programs(load: Load) -> dict[str, steps.Program]:
    """Load programs that do nothing, with every capability."""
    return load("fixtures/attach").programs


@pytest.mark.parametrize("caps", [set(), _ALL - {Cap.NET_ADMIN}], ids=["none", "all but NET_ADMIN"])
def test_xdp_by_netlink_takes_cap_net_admin(
    refused: Refused, programs: dict[str, steps.Program], interface: int, caps: Collection[Cap]
) -> None:
    """rtnetlink_rcv_msg() wants CAP_NET_ADMIN, for which CAP_SYS_ADMIN does not stand: EPERM."""
    fd = programs["fixture_xdp"].fd
    with refused(errno.EPERM, stage="attach"):
        run_as(lambda: steps.xdp_attach(fd, interface), caps=caps)
    run_as(lambda: steps.xdp_attach(fd, interface), caps={Cap.NET_ADMIN}, uid=NOBODY)
    with refused(errno.EPERM, stage="detach"):
        run_as(lambda: steps.xdp_detach(interface), caps=caps)
    assert steps.xdp_id(interface) != 0


def _linked_id(program: steps.Program, interface: int) -> int:
    with steps.xdp_link(program, interface):
        return steps.xdp_id(interface)


@requires("xdp_link")
@refused_without("unpriv_fd_commands", errno.EPERM, stage="attach")
def test_xdp_by_link_takes_no_capability(programs: dict[str, steps.Program], interface: int) -> None:
    """Whoever holds the program's fd may attach it: bpf_xdp_link_attach() asks for no CAP_NET_ADMIN.

    On older kernels the sysctl closes all of bpf() to a process without CAP_BPF.
    """
    xdp = programs["fixture_xdp"]
    assert run_as(lambda: _linked_id(xdp, interface), caps=(), uid=NOBODY) != 0


@requires("xdp_link")
def test_xdp_by_link_takes_no_more_than_cap_bpf(programs: dict[str, steps.Program], interface: int) -> None:
    """On every kernel: CAP_BPF without CAP_NET_ADMIN attaches to an interface of the host."""
    xdp = programs["fixture_xdp"]
    assert run_as(lambda: _linked_id(xdp, interface), caps={Cap.BPF}, uid=NOBODY) != 0


def _kprobe(programs: dict[str, steps.Program]) -> None:
    with steps.kprobe(programs["fixture_kprobe"], "do_nanosleep"):
        pass


def _tracepoint(programs: dict[str, steps.Program]) -> None:
    with steps.tracepoint(programs["fixture_tracepoint"], "syscalls", "sys_enter_connect"):
        pass


@pytest.mark.parametrize("paranoid", [-1, 0, 1, 2])
def test_a_kprobe_takes_cap_perfmon_up_to_paranoid_2(
    refused: Refused, programs: dict[str, steps.Program], sysctl: Sysctl, paranoid: int
) -> None:
    """perf_kprobe_event_init() wants perfmon_capable(): EACCES, even where everybody may use perf."""
    sysctl("perf_event_paranoid", paranoid)
    with refused(errno.EACCES, stage="attach"):
        run_as(lambda: _kprobe(programs), caps=_ALL - {Cap.PERFMON, Cap.SYS_ADMIN})
    run_as(lambda: _kprobe(programs), caps={Cap.PERFMON}, uid=NOBODY)


@pytest.mark.parametrize("paranoid", [1, 2])
def test_a_tracepoint_takes_cap_perfmon_from_paranoid_1_on(
    refused: Refused, programs: dict[str, steps.Program], sysctl: Sysctl, paranoid: int
) -> None:
    """An event of a CPU instead of a process: perf_allow_cpu() answers EACCES; at 0 and below it asks nothing."""
    sysctl("perf_event_paranoid", paranoid)
    with refused(errno.EACCES, stage="attach"):
        run_as(lambda: _tracepoint(programs), caps=_ALL - {Cap.PERFMON, Cap.SYS_ADMIN})
    run_as(lambda: _tracepoint(programs), caps={Cap.PERFMON})
    sysctl("perf_event_paranoid", 0)
    run_as(lambda: _tracepoint(programs), caps=())


def test_a_tracepoint_takes_the_right_to_read_tracefs(
    refused: Refused, programs: dict[str, steps.Program], sysctl: Sysctl
) -> None:
    """Its number is in a file of root's: another uid needs CAP_DAC_READ_SEARCH, or gets EACCES before perf."""
    sysctl("perf_event_paranoid", 2)
    with refused(errno.EACCES, stage="attach"):
        run_as(lambda: _tracepoint(programs), caps={Cap.BPF, Cap.PERFMON, Cap.SYS_ADMIN}, uid=NOBODY)
    run_as(lambda: _tracepoint(programs), caps={Cap.PERFMON, Cap.DAC_READ_SEARCH}, uid=NOBODY)


@requires("perf_restrict")
@pytest.mark.parametrize("attach", [_kprobe, _tracepoint], ids=["kprobe", "tracepoint"])
def test_debians_default_leaves_perf_to_cap_sys_admin(
    refused: Refused, programs: dict[str, steps.Program], attach: Callable[[dict[str, steps.Program]], None]
) -> None:
    """At 3, Debian's default, CAP_PERFMON is not enough to attach: perf_event_open() answers EACCES."""
    assert Path("/proc/sys/kernel/perf_event_paranoid").read_text() == "3\n"
    with refused(errno.EACCES, stage="attach"):
        run_as(lambda: attach(programs), caps=_ALL - {Cap.SYS_ADMIN})
    run_as(lambda: attach(programs), caps={Cap.SYS_ADMIN})
