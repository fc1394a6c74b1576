"""A remedy is applied, here and now, and then the step works: what the capability table has no cells for, too.

tests/test_remedies.py holds every remedy to the table, without a guest; here the facts that a diagnosis is made from
are read from a machine, and the kernel has the last word.
"""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kernel_matrix.diagnose import Diagnosis, Remedy
from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.calls import bpf_calls, perf
from kernel_matrix.guest.bpf.diagnosis import machine
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.pytest.fixtures import Sysctl
from kernel_matrix.guest.pytest.marks import GUEST_FACTS, requires
from kernel_matrix.guest.system.mounts import mount
from kernel_matrix.guest.system.netns import namespace
from kernel_matrix.guest.system.privilege import NOBODY, Cap, run_as
from kernel_matrix.shared.outcomes.features import GuestFacts
from suites.diagnosis.conftest import diagnosed

_ARRAY, _DEVMAP = (steps.MapSpec(kind, 4, 4, 1) for kind in ("array", "devmap"))
_BPF_SYSCTL = "kernel.unprivileged_bpf_disabled"

#: makes the step as somebody: capabilities, uid
Step = Callable[[], object]
As = Callable[[Collection[Cap]], object]


def _cured(tried: As, caps: Collection[Cap], cure: Remedy) -> Diagnosis:
    """Be refused, get this remedy, apply it, and be refused no more."""
    diagnosis = diagnosed(lambda: tried(caps))
    assert diagnosis.cure == cure, diagnosis
    more = {Cap[name.removeprefix("CAP_")] for name in cure.capabilities}
    tried({*caps, *more})
    return diagnosis


def _as(step: Step, uid: int = 0) -> As:
    return lambda caps: run_as(step, caps=caps, uid=uid)


def _gives(*names: str) -> Remedy:
    return Remedy(capabilities=tuple(f"CAP_{name}" for name in names))


@pytest.fixture
def facts(request: pytest.FixtureRequest) -> GuestFacts:
    """Return what the manifest says about this guest's kernel."""
    return request.config.stash[GUEST_FACTS]


@pytest.fixture
def hooks() -> Iterator[dict[str, steps.Program]]:
    """Load a program of each type, with every capability."""
    names = ("hook_cgroup_skb", "hook_kprobe", "hook_tracepoint", "hook_xdp")
    with steps.loaded(steps.object_path("fixtures/hooks"), *names) as bpf_object:
        yield bpf_object.programs


@pytest.mark.parametrize(
    ("caps", "lacking"),
    [((), ("BPF", "NET_ADMIN")), ((Cap.BPF,), ("NET_ADMIN",)), ((Cap.NET_ADMIN,), ("BPF",))],
    ids=["nothing", "BPF", "NET_ADMIN"],
)
def test_a_devmap_is_made_with_what_is_named(caps: Collection[Cap], lacking: tuple[str, ...]) -> None:
    """CAP_NET_ADMIN of whoever has CAP_BPF, both of others."""
    _cured(_as(lambda: os.close(steps.create_map(_DEVMAP))), caps, _gives(*lacking))


@pytest.mark.usefixtures("hooks")
def test_a_list_is_had_with_what_is_named() -> None:
    """CAP_BPF does not show what others have loaded."""
    _cured(_as(lambda: bpf_calls.next_id("prog")), (Cap.BPF,), _gives("SYS_ADMIN"))


def _attached(attach: Callable[[ExitStack], object]) -> Step:
    def step() -> None:
        with ExitStack() as undo:
            attach(undo)

    return step


def test_a_cgroup_takes_a_program_with_what_is_named(hooks: dict[str, steps.Program]) -> None:
    """EINVAL is what bpf_prog_attach() makes of bpf_prog_attach_check_attach_type()'s EPERM."""

    def attach(undo: ExitStack) -> None:
        group = os.open("/sys/fs/cgroup", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        undo.callback(os.close, group)
        bpf_calls.cgroup(hooks["hook_cgroup_skb"].fd, group, "cgroup_inet_ingress", undo)

    tried = _as(_attached(attach))
    with pytest.raises(StepError) as refusal:
        tried({Cap.BPF})
    assert refusal.value.errno == errno.EINVAL
    _cured(tried, {Cap.BPF}, _gives("NET_ADMIN"))


@requires("xdp_link")
def test_a_link_is_made_with_what_is_named(facts: GuestFacts, hooks: dict[str, steps.Program]) -> None:
    """Nothing, but CAP_BPF where the sysctl closes all of bpf()."""
    with namespace() as place, place.entered():
        tried = _as(_attached(lambda undo: bpf_calls.link(hooks["hook_xdp"].fd, 1, "xdp", undo)), NOBODY)
        if "unpriv_fd_commands" in facts.features:
            tried(())
        else:
            diagnosis = _cured(tried, (), _gives("BPF"))
            assert diagnosis.other == Remedy(sysctls={_BPF_SYSCTL: 0})


def _kprobe(hooks: dict[str, steps.Program]) -> Step:
    return _attached(lambda undo: undo.enter_context(steps.kprobe(hooks["hook_kprobe"], "do_nanosleep")))


@requires("perf_restrict")
@pytest.mark.parametrize("caps", [(), (Cap.BPF, Cap.PERFMON)], ids=["nothing", "BPF and PERFMON"])
def test_at_paranoid_3_a_kprobe_takes_cap_sys_admin_alone(
    hooks: dict[str, steps.Program], sysctl: Sysctl, caps: Collection[Cap]
) -> None:
    """Whatever else is there is of no use."""
    sysctl("perf_event_paranoid", 3)
    _cured(_as(_kprobe(hooks), NOBODY), caps, _gives("SYS_ADMIN"))


def test_at_paranoid_2_a_kprobe_takes_cap_perfmon(hooks: dict[str, steps.Program], sysctl: Sysctl) -> None:
    """And no file of tracefs."""
    sysctl("perf_event_paranoid", 2)
    _cured(_as(_kprobe(hooks), NOBODY), (), _gives("PERFMON"))


@pytest.mark.parametrize(
    ("caps", "lacking"),
    [
        ((), ("DAC_READ_SEARCH", "PERFMON")),
        ((Cap.DAC_OVERRIDE,), ("PERFMON",)),
        ((Cap.PERFMON,), ("DAC_READ_SEARCH",)),
    ],
    ids=["nothing", "DAC_OVERRIDE", "PERFMON"],
)
def test_a_tracepoint_by_name_takes_its_file_too(
    hooks: dict[str, steps.Program], sysctl: Sysctl, caps: Collection[Cap], lacking: tuple[str, ...]
) -> None:
    """Its number is in a file of root's, which either file capability opens."""
    sysctl("perf_event_paranoid", 2)
    tracepoint = hooks["hook_tracepoint"]
    step = _attached(lambda undo: undo.enter_context(steps.tracepoint(tracepoint, "sched", "sched_switch")))
    _cured(_as(step, NOBODY), caps, _gives(*lacking))


def test_a_kprobe_by_tracefs_takes_its_file(hooks: dict[str, steps.Program], sysctl: Sysctl) -> None:
    """CAP_DAC_OVERRIDE to write it; at paranoid 0 nothing more, at 2 CAP_PERFMON."""

    def attach(undo: ExitStack) -> None:
        number = perf.tracefs_kprobe("do_nanosleep", undo)
        perf.attach(hooks["hook_kprobe"].fd, perf.tracepoint_event(number, undo))

    sysctl("perf_event_paranoid", 0)
    _cured(_as(_attached(attach), NOBODY), (), _gives("DAC_OVERRIDE"))
    sysctl("perf_event_paranoid", 2)
    _cured(_as(_attached(attach), NOBODY), (), _gives("DAC_OVERRIDE", "PERFMON"))


def test_what_the_verifier_asks_for_is_named_before_it_is_asked() -> None:
    """The packet counter subtracts pointers, which no one knows before the verifier sees it."""
    with steps.loaded(steps.object_path("xdp_packet_counter")) as counter:
        tried = _as(lambda: os.close(steps.load_again(counter.programs["xdp_packet_counter"])))
        first = diagnosed(lambda: tried(()))
        assert first.cure == Remedy(capabilities=("CAP_BPF", "CAP_NET_ADMIN"), verifier=("CAP_PERFMON",))
        _cured(tried, {Cap.BPF, Cap.NET_ADMIN}, _gives("PERFMON"))


@pytest.fixture
def bpffs() -> Iterator[Path]:
    """Mount a bpffs where a user that owns nothing can come."""
    with tempfile.TemporaryDirectory(prefix="bpffs-") as name:
        Path(name).chmod(0o755)
        folder = Path(name, "bpf")
        folder.mkdir()
        mount("none", str(folder), "bpf")
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("mode", [0o700, 0o1777], ids=["private", "public"])
@pytest.mark.parametrize("step", ["pin", "open"])
def test_a_pin_takes_what_its_modes_ask_for(bpffs: Path, step: str, mode: int) -> None:
    """On a bpffs of root's nobody makes or opens a pin without CAP_DAC_OVERRIDE; where all may write, all may pin.

    What is pinned by root is open to root alone on either: 0600.
    """
    fd = steps.create_map(_ARRAY)
    steps.pin(fd, bpffs / "of-root")
    bpffs.chmod(mode)

    def pin() -> None:
        steps.pin(fd, bpffs / "step")
        (bpffs / "step").unlink()

    tried = _as(pin if step == "pin" else lambda: os.close(steps.open_pin(bpffs / "of-root")), NOBODY)
    if (step, mode) == ("pin", 0o1777):
        tried({Cap.BPF})
    else:
        _cured(tried, {Cap.BPF}, _gives("DAC_OVERRIDE"))
    os.close(fd)


def _in_user_namespace(step: Step) -> Step:
    def inside() -> object:
        os.unshare(os.CLONE_NEWUSER)
        return step()

    return inside


def test_in_a_user_namespace_a_sysctl_is_named(sysctl: Sysctl) -> None:
    """Its capabilities do not count, all of which the one who makes it has."""
    tried = _as(_in_user_namespace(lambda: os.close(steps.create_map(_ARRAY))), NOBODY)
    diagnosis = diagnosed(lambda: tried(()))
    assert diagnosis.cure == Remedy(sysctls={_BPF_SYSCTL: 0}), diagnosis
    sysctl("unprivileged_bpf_disabled", 0)
    tried(())


def test_in_a_user_namespace_a_way_out_is_named(hooks: dict[str, steps.Program]) -> None:
    """No sysctl lets anybody load an XDP program, so only the initial user namespace is left."""

    def load() -> None:
        os.close(steps.load_again(hooks["hook_xdp"]))

    diagnosis = diagnosed(lambda: _as(_in_user_namespace(load), NOBODY)(()))
    assert diagnosis.cure.outside
    caps = [Cap[name.removeprefix("CAP_")] for name in diagnosis.cure.capabilities]
    assert caps == [Cap.BPF, Cap.NET_ADMIN]
    _as(load, NOBODY)(caps)


@requires("perf_restrict")
def test_the_process_that_attaches_what_it_loads_is_told_all() -> None:
    """``python -m kernel_matrix diagnose`` does both: at paranoid 3 CAP_SYS_ADMIN alone does, and no other set."""
    path = steps.object_path("kprobe_execve")
    to = steps.destinations(path)["trace_execve"]

    def both() -> None:
        with steps.loaded(path, "trace_execve") as bpf_object, steps.by_section(bpf_object.programs["trace_execve"]):
            pass

    def refused() -> Diagnosis:
        try:
            both()
        except StepError as error:
            return machine.explain(error, to=to)
        raise AssertionError("it was not refused")

    assert run_as(refused, caps=()).cure == _gives("SYS_ADMIN")
    run_as(both, caps={Cap.SYS_ADMIN})
