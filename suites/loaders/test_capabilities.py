"""Which capabilities each loader takes beyond those that the kernel itself wants for the same program.

Each answer is that of a process with exactly these capabilities, in which the loader runs from its start to the
program. The kernel's own minimum for load and attach is in docs/capabilities.md; the difference is the loader's.
"""

from __future__ import annotations

import errno
import itertools
import resource
from collections.abc import Collection

import pytest

from kernel_matrix.guest.bpf import loaders
from kernel_matrix.guest.bpf.loader_program import ProgramLoader
from kernel_matrix.guest.bpf.loaders import Loader
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.bpf.steps import XdpFlags, object_path
from kernel_matrix.guest.pytest.marks import GUEST_FACTS
from kernel_matrix.guest.system.netns import Veth
from kernel_matrix.guest.system.privilege import NOBODY, Cap, run_as
from suites.loaders.conftest import FIXTURE

#: object -> its program, and the kernel's minimum to load and attach it
SHIPPED = {
    "xdp_packet_counter": ("xdp_packet_counter", {Cap.BPF, Cap.NET_ADMIN, Cap.PERFMON}),
    # Debian's kernel.perf_event_paranoid of 3 takes CAP_SYS_ADMIN, which implies the others, for any perf event
    "kprobe_execve": ("trace_execve", {Cap.SYS_ADMIN}),
    "tracepoint_network": ("trace_connect_enter", {Cap.SYS_ADMIN}),
}
#: users that nobody else is: until 5.11 locked memory is charged to a user, and freed some time after a map is closed
_USERS = itertools.count(NOBODY - 1, -1)


def attaches(loader: Loader, name: str, caps: Collection[Cap], uid: int, pair: Veth) -> None:
    """Run the loader with these capabilities until the program is attached; raises StepError."""
    program = SHIPPED[name][0]

    def steps() -> None:
        own = loaders.create(loader.name)
        if isinstance(own, ProgramLoader):
            # as a login gives it before 5.16, whatever this process has raised it to
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (64 << 10, 64 << 10))
        try:
            with own.opened(object_path(name)) as obj:
                if name == "xdp_packet_counter":
                    obj.attach_xdp(program, pair.near.index, XdpFlags.NONE).close()
                else:
                    obj.attach(program).close()
        finally:
            own.close()

    with pair.near.namespace.entered():
        run_as(steps, caps=caps, uid=uid, passed_on=True)


@pytest.fixture(autouse=True)
def raised(loader: Loader) -> None:
    """Load an object in this process: libbpf raises RLIMIT_MEMLOCK once in a process, and its forks inherit it."""
    with loader.opened(FIXTURE):
        pass


@pytest.fixture(autouse=True, scope="module")
def compiled(loader: Loader) -> None:
    """Have bcc compile before a user with few capabilities loads: the guest mounts the headers, which takes others."""
    if loader.name == "bcc":
        for name in SHIPPED:
            with loader.opened(object_path(name)):
                pass


@pytest.fixture
def charges_memory(request: pytest.FixtureRequest) -> bool:
    """Return whether the kernel charges maps to the cgroup, and not to RLIMIT_MEMLOCK (5.11)."""
    return "memcg_accounting" in request.config.stash[GUEST_FACTS].features


def further(loader: Loader, name: str, *, charges_memory: bool) -> dict[Cap, tuple[int, str]]:
    """Return the capabilities that a user takes beyond the kernel's minimum, each with errno and stage without it."""
    caps: dict[Cap, tuple[int, str]] = {}
    if not charges_memory:
        # 64 KiB may be locked; a ring buffer of 256 KiB takes more, so whoever loads it raises RLIMIT_MEMLOCK first,
        # for which setrlimit(2) wants CAP_SYS_RESOURCE. cilium/ebpf raises it before it has looked at the object
        # (rlimit.RemoveMemlock), and gives up. libbpf and bcc run in this process, which has raised it
        if loader.name == "cilium":
            caps[Cap.SYS_RESOURCE] = (errno.EPERM, "open")
        elif loader.name == "aya" and name != "xdp_packet_counter":
            caps[Cap.SYS_RESOURCE] = (errno.EPERM, "map_create")
    if loader.name == "bcc" and name == "kprobe_execve":
        # bcc detaches by reading tracefs's list of probes, to see whether this is one of them (libbpf.c,
        # bpf_detach_probe()): only root may enter its folder. The program is detached by then
        caps[Cap.DAC_READ_SEARCH] = (errno.EACCES, "detach")
    if name == "tracepoint_network":
        # its number is in a file of tracefs, whose folder only root may enter: EACCES; aya takes that for a machine
        # without tracefs, and has no errno (aya/src/util.rs, find_tracefs_path())
        caps[Cap.DAC_READ_SEARCH] = (0 if loader.name == "aya" else errno.EACCES, "attach")
    return caps


@pytest.mark.parametrize("name", ["xdp_packet_counter", "kprobe_execve"])
def test_the_kernel_s_minimum_suffices_for_root(
    name: str,
    loader: Loader,
    pair: Veth,
    charges_memory: bool,  # noqa: FBT001 - a fixture
) -> None:
    """Where memory is charged to RLIMIT_MEMLOCK, with the capability to raise it."""
    caps = SHIPPED[name][1] | (set() if charges_memory else {Cap.SYS_RESOURCE})
    attaches(loader, name, caps, 0, pair)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_user_takes_the_kernel_s_minimum_and_these(
    name: str,
    loader: Loader,
    pair: Veth,
    charges_memory: bool,  # noqa: FBT001 - a fixture
) -> None:
    """With all of them it works; without any one of the loader's own it is refused, exactly there."""
    kernels, own = SHIPPED[name][1], further(loader, name, charges_memory=charges_memory)
    for cap, refusal in own.items():
        with pytest.raises(StepError) as caught:
            attaches(loader, name, (kernels | own.keys()) - {cap}, next(_USERS), pair)
        assert (caught.value.errno, caught.value.stage) == refusal, cap.name
    attaches(loader, name, kernels | own.keys(), next(_USERS), pair)
