"""Each diagnosis against the kernel really producing its situation: the cause, and the name of what is in the way."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from kernel_matrix.diagnose import Cause, Diagnosis
from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.calls.instructions import MAX_INSNS, copy, leave
from kernel_matrix.guest.bpf.calls.verifier import count_only, verified
from kernel_matrix.guest.bpf.diagnosis import trying
from kernel_matrix.guest.pytest.fixtures import Sysctl
from kernel_matrix.guest.pytest.marks import GUEST_FACTS, requires
from kernel_matrix.guest.system.mounts import without
from kernel_matrix.guest.system.netns import namespace
from kernel_matrix.guest.system.privilege import NOBODY, Cap, run_as
from kernel_matrix.shared.outcomes.features import GuestFacts
from suites.diagnosis.conftest import attach, diagnosed, load, without_bpf

_ALL = frozenset(Cap)
_ARRAY = steps.MapSpec("array", key=4, value=4, entries=1)
_TRACEFS = "/sys/kernel/tracing"


def _says(diagnosis: Diagnosis, cause: Cause, *words: str) -> None:
    text = str(diagnosis)
    assert diagnosis.cause is cause, text
    assert not [word for word in words if word not in text], text


@pytest.fixture
def programs() -> Iterator[dict[str, steps.Program]]:
    """Load programs that do nothing, with every capability."""
    with steps.loaded(steps.object_path("fixtures/attach")) as bpf_object:
        yield bpf_object.programs


@pytest.fixture
def facts(request: pytest.FixtureRequest) -> GuestFacts:
    """Return what the manifest says about this guest's kernel."""
    return request.config.stash[GUEST_FACTS]


# -- insufficient permission


@pytest.mark.parametrize(
    ("program", "lacking"),
    [
        ("fixture_socket", {Cap.BPF}),
        ("fixture_xdp", {Cap.BPF}),
        ("fixture_xdp", {Cap.NET_ADMIN}),
        ("fixture_kprobe", {Cap.PERFMON}),
        ("fixture_tracepoint", {Cap.BPF, Cap.PERFMON}),
    ],
    ids=lambda value: "and".join(sorted(cap.name for cap in value)) if isinstance(value, set) else value,
)
def test_the_capability_that_loading_lacks_is_named(
    programs: dict[str, steps.Program], program: str, lacking: set[Cap]
) -> None:
    """Every other capability is there; CAP_SYS_ADMIN is not, because it stands for them."""
    caps = _ALL - lacking - {Cap.SYS_ADMIN}
    diagnosis = run_as(lambda: diagnosed(lambda: steps.load_again(programs[program])), caps=caps)
    _says(diagnosis, Cause.PERMISSION, *[f"CAP_{cap.name}" for cap in lacking], "missing")


def test_the_sysctl_that_closes_bpf_to_the_unprivileged_is_named(programs: dict[str, steps.Program]) -> None:
    """For a program that it would open to them."""
    diagnosis = run_as(lambda: diagnosed(lambda: steps.load_again(programs["fixture_socket"])), caps=(), uid=NOBODY)
    _says(diagnosis, Cause.PERMISSION, "CAP_BPF missing", "kernel.unprivileged_bpf_disabled")


def test_a_map_lacks_cap_bpf() -> None:
    """An array, where unprivileged BPF is disabled."""
    diagnosis = run_as(lambda: diagnosed(lambda: steps.create_map(_ARRAY)), caps=_ALL - {Cap.BPF, Cap.SYS_ADMIN})
    _says(diagnosis, Cause.PERMISSION, "CAP_BPF missing")


def test_pointers_that_are_computed_with_lack_cap_perfmon() -> None:
    """The packet counter subtracts two pointers."""
    with steps.loaded(steps.object_path("xdp_packet_counter")) as counter:
        program = counter.programs["xdp_packet_counter"]
        caps = _ALL - {Cap.PERFMON, Cap.SYS_ADMIN}
        _says(run_as(lambda: diagnosed(lambda: steps.load_again(program)), caps=caps), Cause.PERMISSION, "CAP_PERFMON")


def _kprobe(programs: dict[str, steps.Program], symbol: str) -> None:
    with steps.kprobe(programs["fixture_kprobe"], symbol):
        pass


def _tracepoint(programs: dict[str, steps.Program], category: str, name: str) -> None:
    with steps.tracepoint(programs["fixture_tracepoint"], category, name):
        pass


def test_a_kprobe_lacks_cap_perfmon(programs: dict[str, steps.Program], sysctl: Sysctl) -> None:
    """Where the sysctl leaves it at that."""
    sysctl("perf_event_paranoid", 2)
    caps = _ALL - {Cap.PERFMON, Cap.SYS_ADMIN}
    diagnosis = run_as(lambda: diagnosed(lambda: _kprobe(programs, "do_nanosleep")), caps=caps)
    _says(diagnosis, Cause.PERMISSION, "CAP_PERFMON missing")


@requires("perf_restrict")
def test_the_sysctl_that_leaves_perf_to_cap_sys_admin_is_named(
    programs: dict[str, steps.Program], sysctl: Sysctl
) -> None:
    """Debian's own level."""
    sysctl("perf_event_paranoid", 3)
    diagnosis = run_as(lambda: diagnosed(lambda: _kprobe(programs, "do_nanosleep")), caps=_ALL - {Cap.SYS_ADMIN})
    _says(diagnosis, Cause.PERMISSION, "kernel.perf_event_paranoid is 3", "CAP_SYS_ADMIN")


def test_tracefs_is_for_root_alone(programs: dict[str, steps.Program], sysctl: Sysctl) -> None:
    """Another uid may not read a tracepoint's number."""
    sysctl("perf_event_paranoid", 2)

    def step() -> Diagnosis:
        return diagnosed(lambda: _tracepoint(programs, "sched", "sched_switch"))

    _says(run_as(step, caps={Cap.BPF, Cap.PERFMON}, uid=NOBODY), Cause.PERMISSION, "CAP_DAC_READ_SEARCH")


@pytest.fixture
def interface() -> Iterator[int]:
    """Give one end of a veth pair in a namespace of its own."""
    with namespace() as place, place.entered():
        with IPRoute() as netlink:
            netlink.link("add", ifname="end", kind="veth", peer={"ifname": "peer"})
        yield socket.if_nametoindex("end")


def test_an_interface_lacks_cap_net_admin(programs: dict[str, steps.Program], interface: int) -> None:
    """CAP_SYS_ADMIN does not stand for it there."""
    fd = programs["fixture_xdp"].fd
    diagnosis = run_as(lambda: diagnosed(lambda: steps.xdp_attach(fd, interface)), caps=_ALL - {Cap.NET_ADMIN})
    _says(diagnosis, Cause.PERMISSION, "CAP_NET_ADMIN missing")


# -- not supported


def test_no_bpf_at_all() -> None:
    """ENOSYS, here from a seccomp filter: the same answer as that of a kernel without CONFIG_BPF_SYSCALL."""
    diagnosis = run_as(lambda: diagnosed(without_bpf(lambda: load("fixtures/attach", "fixture_xdp"))), caps=_ALL)
    _says(diagnosis, Cause.NOT_SUPPORTED, "CONFIG_BPF_SYSCALL")


def test_a_map_type_that_no_kernel_has() -> None:
    """EINVAL."""
    diagnosis = diagnosed(lambda: steps.create_map_of_type(1000, _ARRAY))
    _says(diagnosis, Cause.NOT_SUPPORTED, "another map type")


def test_a_program_type_is_missed_only_where_it_is_missing(facts: GuestFacts) -> None:
    """A netfilter program, where the kernel does not know it; where it does, it loads."""
    if "netfilter" in facts.features:
        load("engine/probes", "probe_netfilter")
    else:
        diagnosis = diagnosed(lambda: load("engine/probes", "probe_netfilter"))
        _says(diagnosis, Cause.NOT_SUPPORTED, "programs of type netfilter")


# -- the program


def test_a_program_of_too_many_instructions(sysctl: Sysctl) -> None:
    """With every capability, and without any where the sysctl lets the unprivileged load programs."""
    _says(diagnosed(lambda: count_only("socket_filter", 1_000_001)), Cause.TOO_LARGE, "1,000,000")
    sysctl("unprivileged_bpf_disabled", 0)
    diagnosis = run_as(lambda: diagnosed(lambda: count_only("socket_filter", MAX_INSNS + 1)), caps=(), uid=NOBODY)
    _says(diagnosis, Cause.TOO_LARGE, "4096", "CAP_BPF")


def test_what_the_verifier_says_is_handed_on() -> None:
    """Libbpf asks again with a log when a program is refused."""

    def step() -> None:
        with verified("socket_filter", copy(0, 2) + leave()):
            pass

    # without a log nothing is known but the errno
    _says(diagnosed(step), Cause.UNKNOWN, "EACCES")
    _says(diagnosed(lambda: load("fixtures/core", "core_missing")), Cause.SYMBOL, "task_struct___none.no_such_field")


# -- where it goes


def test_the_name_that_exists_is_named(programs: dict[str, steps.Program]) -> None:
    """System calls carry the prefix of their architecture."""
    diagnosis = diagnosed(lambda: _kprobe(programs, "sys_execve"))
    _says(diagnosis, Cause.SYMBOL, "no function sys_execve", "attach to __x64_sys_execve")
    _says(diagnosed(lambda: _kprobe(programs, "no_such_function")), Cause.SYMBOL, "nor one of a like name")


def test_a_function_that_may_not_be_probed(programs: dict[str, steps.Program]) -> None:
    """It is there, so it is not missing."""
    _says(diagnosed(lambda: _kprobe(programs, "notify_die")), Cause.ATTACH_TYPE, "blacklist")


@pytest.mark.parametrize("program", ["hook_fentry_missing", "hook_lsm_missing"])
def test_a_function_to_trace_that_does_not_exist(program: str) -> None:
    """The kernel's BTF is there, and has no such function."""
    _says(diagnosed(lambda: load("fixtures/hooks", program)), Cause.SYMBOL, "no_such_")


def test_a_program_of_another_type(programs: dict[str, steps.Program], interface: int) -> None:
    """At a kprobe and at an interface: the type that it is, and the one that it should be."""

    def kprobe() -> None:
        with steps.kprobe(programs["fixture_xdp"], "do_nanosleep"):
            pass

    _says(diagnosed(kprobe), Cause.ATTACH_TYPE, "of type xdp", "section say kprobe")
    diagnosis = diagnosed(lambda: steps.xdp_attach(programs["fixture_socket"].fd, interface))
    _says(diagnosis, Cause.ATTACH_TYPE, "of type socket_filter", "section say xdp")


def test_a_section_that_names_no_hook() -> None:
    """Libbpf attaches nothing by itself."""
    _says(diagnosed(lambda: attach("fixtures/attach", "fixture_xdp")), Cause.ATTACH_TYPE, "does not say where")


def test_another_program_is_on_the_interface(programs: dict[str, steps.Program], interface: int) -> None:
    """UPDATE_IF_NOEXIST."""
    flags = steps.XdpFlags.UPDATE_IF_NOEXIST
    steps.xdp_attach(programs["fixture_xdp"].fd, interface, flags)
    diagnosis = diagnosed(lambda: steps.xdp_attach(programs["fixture_xdp_other"].fd, interface, flags))
    _says(diagnosis, Cause.INTERFACE, "another program or link")


# -- what is not mounted, not active, not there


def test_tracefs_is_not_mounted(programs: dict[str, steps.Program]) -> None:
    """A tracepoint's number is nowhere then; where it is mounted, the tracepoint is what is missing."""

    def step() -> Diagnosis:
        return diagnosed(lambda: _tracepoint(programs, "sched", "sched_switch"))

    _says(without(unmounting=("/sys/kernel/tracing", "/sys/kernel/debug"), do=step), Cause.NOT_MOUNTED, "tracefs")
    diagnosis = diagnosed(lambda: _tracepoint(programs, "sched", "no_such_tracepoint"))
    _says(diagnosis, Cause.SYMBOL, "no tracepoint sched:no_such_tracepoint")


def test_bpffs_is_not_mounted() -> None:
    """It is not, by default, in a guest."""
    fd = steps.create_map(_ARRAY)
    try:
        _says(diagnosed(lambda: steps.pin(fd, Path("/sys/fs/bpf/map"))), Cause.NOT_MOUNTED, "bpffs", "mount -t bpf")
    finally:
        os.close(fd)


def test_the_kernel_shows_no_btf() -> None:
    """Hidden here; of kernels without it libbpf says the same."""
    diagnosis = without("/sys/kernel/btf", do=lambda: diagnosed(lambda: load("fixtures/core", "core_pid")))
    _says(diagnosis, Cause.NO_BTF, "/sys/kernel/btf/vmlinux")


def test_the_object_has_no_btf(tmp_path: Path) -> None:
    """The section renamed."""
    path = tmp_path / "stripped.bpf.o"
    path.write_bytes(steps.object_path("xdp_packet_counter").read_bytes().replace(b".BTF", b".XYZ"))
    (attempt,) = trying.attempts(path)
    assert attempt.diagnosis is not None
    _says(attempt.diagnosis, Cause.NO_BTF, "the object has no BTF")


def test_an_lsm_program_is_heard_only_when_bpf_is_active(facts: GuestFacts) -> None:
    """It attaches in both cases."""
    tried = {attempt.program: attempt for attempt in trying.attempts(steps.object_path("fixtures/hooks"))}
    diagnosis = tried["hook_lsm"].diagnosis
    if "lsm_active" in facts.features:
        assert diagnosis is None
    else:
        assert diagnosis is not None
        _says(diagnosis, Cause.LSM_INACTIVE, "bpf is not among", "lsm=")
    assert tried["hook_fentry"].succeeded


def test_the_memory_limit_is_blamed_only_where_it_is_charged(facts: GuestFacts) -> None:
    """Where the kernel still does: EPERM with every capability but the one that would raise the limit."""

    def step() -> None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        os.close(steps.create_map(_ARRAY))

    caps = {Cap.BPF, Cap.SYS_ADMIN}
    if "memcg_accounting" in facts.features:
        run_as(step, caps=caps)
    else:
        _says(run_as(lambda: diagnosed(step), caps=caps), Cause.MEMLOCK, "RLIMIT_MEMLOCK, which is 0 KiB")
