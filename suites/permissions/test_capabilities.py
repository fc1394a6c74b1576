"""Which capabilities creating the maps and loading the programs takes, for each shipped program.

Each step is one call of a child that has exactly the named capabilities; every other step was made with
all of them. Kernel: bpf_prog_load() wants bpf_capable() first, then CAP_NET_ADMIN for the networking
types (is_net_admin_prog_type()) or CAP_PERFMON for the tracing types (is_perfmon_prog_type()), each with
EPERM; then the verifier refuses, with EACCES, what would show kernel addresses to a loader without
CAP_PERFMON (env->allow_ptr_leaks). CAP_SYS_ADMIN stands for any of them.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

import pytest

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.pytest.fixtures import Sysctl
from kernel_matrix.guest.pytest.refusal import Refused
from kernel_matrix.guest.system.privilege import NOBODY, Cap, run_as
from suites.permissions.conftest import Load


@dataclass(frozen=True, slots=True)
class Shipped:
    """A shipped object and one program of it."""

    object: str
    program: str
    #: the smallest set that loads the program, and the errno without each of its members
    needs: dict[Cap, int]


_TRACING = {Cap.BPF: errno.EPERM, Cap.PERFMON: errno.EPERM}
_SHIPPED = [
    # `end - data`, the length of the frame, subtracts pointers: adjust_reg_min_max_vals() allows it only
    # to those who may see addresses
    Shipped(
        "xdp_packet_counter",
        "xdp_packet_counter",
        {Cap.BPF: errno.EPERM, Cap.NET_ADMIN: errno.EPERM, Cap.PERFMON: errno.EACCES},
    ),
    Shipped("kprobe_execve", "trace_execve", _TRACING),
    Shipped("tracepoint_network", "trace_connect_enter", _TRACING),
]
_ALL = frozenset(Cap)

shipped_program = pytest.mark.parametrize("shipped", _SHIPPED, ids=lambda shipped: shipped.object)
as_uid = pytest.mark.parametrize("uid", [0, NOBODY], ids=["root", "nobody"])


def _create_all(loaded: steps.Loaded) -> None:
    for spec in loaded.specs:
        steps.create_map(spec)


@as_uid
@shipped_program
def test_maps_take_cap_bpf(refused: Refused, load: Load, shipped: Shipped, uid: int) -> None:
    """With unprivileged BPF disabled, every capability but CAP_BPF and CAP_SYS_ADMIN creates no map."""
    loaded = load(shipped.object, shipped.program)
    assert loaded.specs
    for spec in loaded.specs:
        with refused(errno.EPERM, stage="map_create"):
            run_as(lambda spec=spec: steps.create_map(spec), caps=_ALL - {Cap.BPF, Cap.SYS_ADMIN}, uid=uid)  # type: ignore[misc]
    run_as(lambda: _create_all(loaded), caps={Cap.BPF}, uid=uid)


@as_uid
@shipped_program
@pytest.mark.parametrize("caps", [(), (Cap.BPF,)], ids=["no capability", "CAP_BPF alone"])
def test_cap_bpf_alone_loads_no_program(
    refused: Refused, load: Load, shipped: Shipped, caps: tuple[Cap, ...], uid: int
) -> None:
    """What most documentation calls enough is EPERM for every shipped program."""
    program = load(shipped.object, shipped.program).programs[shipped.program]
    with refused(errno.EPERM, stage="load"):
        run_as(lambda: steps.load_again(program), caps=caps, uid=uid)
    run_as(lambda: steps.load_again(program), caps=shipped.needs, uid=uid)


@pytest.mark.parametrize(
    ("shipped", "missing"),
    [
        pytest.param(shipped, missing, id=f"{shipped.object} without {missing.name}")
        for shipped in _SHIPPED
        for missing in shipped.needs
    ],
)
def test_a_program_takes_exactly_its_set(refused: Refused, load: Load, shipped: Shipped, missing: Cap) -> None:
    """Every other capability does not make up for a missing one, and nothing but the set is needed."""
    program = load(shipped.object, shipped.program).programs[shipped.program]
    with refused(shipped.needs[missing], stage="load"):
        run_as(lambda: steps.load_again(program), caps=_ALL - {missing, Cap.SYS_ADMIN})
    run_as(lambda: steps.load_again(program), caps=shipped.needs)


def test_a_pointer_minus_a_pointer_is_refused(refused: Refused) -> None:
    """The verifier names both (adjust_reg_min_max_vals()), and with CAP_PERFMON goes on."""

    def load() -> None:
        with steps.loaded(steps.object_path("xdp_packet_counter")):
            pass

    with refused(errno.EACCES, stage="load") as refusal:
        run_as(load, caps=_ALL - {Cap.PERFMON, Cap.SYS_ADMIN})
    assert "pointer -= pointer prohibited" in refusal.log
    run_as(load, caps=_ALL - {Cap.SYS_ADMIN})


@shipped_program
def test_cap_sys_admin_alone_loads_a_program(load: Load, shipped: Shipped) -> None:
    """It stands for CAP_BPF, CAP_PERFMON and, at load, CAP_NET_ADMIN: programs of before 5.8 go on working."""
    loaded = load(shipped.object, shipped.program)
    run_as(lambda: _create_all(loaded), caps={Cap.SYS_ADMIN}, uid=NOBODY)
    run_as(lambda: steps.load_again(loaded.programs[shipped.program]), caps={Cap.SYS_ADMIN}, uid=NOBODY)


_ARRAY = steps.MapSpec("array", key=4, value=4, entries=1)
_LRU_HASH = steps.MapSpec("lru_hash", key=4, value=4, entries=1)


def test_the_sysctl_decides_what_an_unprivileged_user_may(refused: Refused, load: Load, sysctl: Sysctl) -> None:
    """unprivileged_bpf_disabled: 0 opens array maps and socket filters to everybody, 2 closes them."""
    socket_filter = load("fixtures/attach", "fixture_socket").programs["fixture_socket"]
    for opened in (lambda: steps.create_map(_ARRAY), lambda: steps.load_again(socket_filter)):
        sysctl("unprivileged_bpf_disabled", 0)
        run_as(opened, caps=(), uid=NOBODY)
    sysctl("unprivileged_bpf_disabled", 2)
    with refused(errno.EPERM, stage="map_create"):
        run_as(lambda: steps.create_map(_ARRAY), caps=(), uid=NOBODY)
    with refused(errno.EPERM, stage="load"):
        run_as(lambda: steps.load_again(socket_filter), caps=(), uid=NOBODY)


def test_the_sysctl_opens_no_privileged_map_or_program(refused: Refused, load: Load, sysctl: Sysctl) -> None:
    """Even at 0 an LRU hash takes CAP_BPF and an XDP program CAP_NET_ADMIN."""
    xdp = load("fixtures/attach", "fixture_xdp").programs["fixture_xdp"]
    sysctl("unprivileged_bpf_disabled", 0)
    with refused(errno.EPERM, stage="map_create"):
        run_as(lambda: steps.create_map(_LRU_HASH), caps=(), uid=NOBODY)
    with refused(errno.EPERM, stage="load"):
        run_as(lambda: steps.load_again(xdp), caps=(), uid=NOBODY)
    run_as(lambda: steps.create_map(_LRU_HASH), caps={Cap.BPF}, uid=NOBODY)
    run_as(lambda: steps.load_again(xdp), caps={Cap.BPF, Cap.NET_ADMIN}, uid=NOBODY)
