"""Which capabilities each loader takes beyond those that the kernel itself wants for the same program.

Each answer is that of a process with exactly these capabilities, in which the loader runs from its start to the
program. The kernel's own minimum for load and attach is in baselines/capabilities.json (docs/capabilities.md); the
difference is the loader's, measured and reviewed as an observation (docs/loaders.md). What is known of it:

- The number of a tracepoint is in a file of tracefs, whose folder only root may enter: EACCES, and whoever reads it
  takes CAP_DAC_READ_SEARCH. aya takes the refusal for a machine without tracefs, and has no errno (aya/src/util.rs,
  find_tracefs_path()). On 6.16 to 6.18 the folder has the mode 0755, its files have 0440: there aya, too, has EACCES.
- Until 5.11 maps are charged to RLIMIT_MEMLOCK: 64 KiB, as a login gives them before 5.16. A ring buffer of 256 KiB
  takes more, so whoever loads it raises the limit first, for which setrlimit(2) asks for CAP_SYS_RESOURCE. cilium/ebpf
  raises it before it has looked at the object (rlimit.RemoveMemlock()), and gives up. With aya the map is refused. A
  loader in this process has raised it before (`raised`).
"""

from __future__ import annotations

import itertools
import resource
from bisect import bisect_left
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path

import pytest

from kernel_matrix.guest.bpf import loaders
from kernel_matrix.guest.bpf.loader_support.loader_program import ProgramLoader
from kernel_matrix.guest.bpf.loaders import Loader
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.guest.bpf.steps import XdpFlags, object_path
from kernel_matrix.guest.pytest.fixtures import Observed
from kernel_matrix.guest.pytest.marks import GUEST_FACTS
from kernel_matrix.guest.system.netns import Veth
from kernel_matrix.guest.system.privilege import NOBODY, Cap, run_as
from kernel_matrix.shared.outcomes import capabilities, capability_table
from kernel_matrix.shared.outcomes.capability_table import Context, Table
from suites.loaders.conftest import in_words

#: object -> its program, and its path in the capability table: one that reads no file
SHIPPED = {
    "xdp_packet_counter": ("xdp_packet_counter", "netlink"),
    "kprobe_execve": ("trace_execve", "perf"),
    "tracepoint_network": ("trace_connect_enter", "perf"),
}
#: what is tried beyond the kernel's minimum, of two that do the same the narrower first
_FURTHER = (
    Cap.DAC_READ_SEARCH,
    Cap.DAC_OVERRIDE,
    Cap.IPC_LOCK,
    Cap.SYS_RESOURCE,
    Cap.SYSLOG,
    Cap.NET_ADMIN,
    Cap.PERFMON,
    Cap.BPF,
    Cap.SYS_ADMIN,
)
_TABLES = Path(__file__).parents[2] / "baselines" / "capabilities.json"
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
def raised(name: str, loader: Loader) -> None:
    """Load the object in this process: what a loader does once in a process is done, and its forks inherit it.

    libbpf raises RLIMIT_MEMLOCK once, bcc compiles once. A program is started anew for each try.
    """
    if not isinstance(loader, ProgramLoader):
        with loader.opened(object_path(name)):
            pass


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Table:
    """Return the capability table of this kernel, which suites/capabilities holds to the kernel."""
    kernel = request.config.stash[GUEST_FACTS].kernel
    tables = capability_table.read(_TABLES.read_text(), only={kernel})
    if kernel not in tables:
        pytest.fail(f"baselines/{_TABLES.name} has no kernel {kernel}", pytrace=False)
    return tables[kernel]


def minimum(table: Table, name: str, who: str) -> frozenset[Cap]:
    """Return the kernel's first minimal set for loading and attaching a shipped program: the one of narrow ones."""
    sets = table.minimal_sets(f"{name} load+attach {SHIPPED[name][1]}", Context(who))
    return frozenset(Cap[cap] for cap in sets[0])


@pytest.mark.parametrize("name", SHIPPED)
def test_the_kernel_s_minimum_suffices_for_root(
    name: str, loader: Loader, pair: Veth, table: Table, request: pytest.FixtureRequest
) -> None:
    """Where memory is charged to RLIMIT_MEMLOCK (until 5.11), with the capability to raise it."""
    charged = "memcg_accounting" not in request.config.stash[GUEST_FACTS].features
    attaches(loader, name, minimum(table, name, "root") | ({Cap.SYS_RESOURCE} if charged else set()), 0, pair)


#: tries with these capabilities, and returns what was refused
Try = Callable[[frozenset[Cap]], StepError | None]


def further(refusal: Try, least: frozenset[Cap]) -> dict[Cap, StepError | None]:
    """Return the capabilities that it takes beyond these, each with the refusal without it.

    A further capability never turns success into a refusal. So a search finds the fewest of the candidates, in their
    order, with which it works: the last of them is necessary, and with it a part of those before.
    """
    needed: frozenset[Cap] = frozenset()
    candidates = [cap for cap in _FURTHER if cap not in least]
    while refusal(least | needed):
        prefixes = [least.union(needed, candidates[:count]) for count in range(len(candidates) + 1)]
        count = bisect_left(prefixes, True, key=lambda caps: refusal(caps) is None)  # noqa: FBT003 - the sought answer
        if count == len(prefixes):
            raise AssertionError(f"refused with every capability: {refusal(prefixes[-1])}")
        needed |= {candidates[count - 1]}
        candidates = candidates[: count - 1]
    return {cap: refusal((least | needed) - {cap}) for cap in _FURTHER if cap in needed}


@pytest.mark.parametrize("name", SHIPPED)
def test_what_a_user_takes_beyond_the_kernel_s_minimum(
    name: str, loader: Loader, pair: Veth, table: Table, observed: Observed
) -> None:
    """With all of it the program is attached; without any one capability the loader is refused."""

    @cache
    def refusal(caps: frozenset[Cap]) -> StepError | None:
        try:
            attaches(loader, name, caps, next(_USERS), pair)
        except StepError as error:
            return error
        return None

    least = minimum(table, name, "nobody")
    own = further(refusal, least)
    assert None not in own.values()
    words = [f"{cap.name} (without: {in_words(error).partition(':')[0]})" for cap, error in own.items()]
    kernels = capabilities.show(cap.name for cap in least)
    observed(f"capabilities: `{name}`: {kernels}", ", ".join(words) or "nothing")
