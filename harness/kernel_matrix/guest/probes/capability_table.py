"""Measure the capability table of the running kernel."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.guest.bpf import library, steps
from kernel_matrix.guest.bpf.btf import Btf
from kernel_matrix.guest.bpf.calls import bpf_calls, classifier, perf
from kernel_matrix.guest.bpf.calls.struct_ops import StructOps
from kernel_matrix.guest.probes import capability_probes, users
from kernel_matrix.guest.probes.capability_paths import CGROUP_HOOKS, LOOPBACK, TRACEPOINT
from kernel_matrix.guest.probes.capability_place import BPF_SYSCTL, PERF_SYSCTL, Probe, Resources
from kernel_matrix.guest.probes.capability_probes import FIXTURES, MAPS
from kernel_matrix.guest.system.cgroups import cgroup
from kernel_matrix.guest.system.netns import namespace
from kernel_matrix.shared.outcomes import capabilities, capability_table
from kernel_matrix.shared.outcomes.capability_table import Context, Lines, Table
from kernel_matrix.shared.outcomes.features import GuestFacts
from kernel_matrix.shared.project import Program

_SYSCTLS = Path("/proc/sys/kernel")
#: settings other than the defaults; unprivileged_bpf_disabled=1 cannot be undone, so it has its own test
_ALONE = (f"{BPF_SYSCTL}=0", *(f"{PERF_SYSCTL}={value}" for value in (-1, 0, 1, 2)))
#: two settings at once, for probes that depend on both: either may refuse a set that the other permits
_TOGETHER = tuple(f"{_ALONE[0]}&{other}" for other in _ALONE[1:])
SETTINGS = (*_ALONE, *_TOGETHER)


def value(sysctl: str) -> int:
    """Read a kernel.* sysctl."""
    return int((_SYSCTLS / sysctl).read_text())


@contextmanager
def setting(assignment: str) -> Iterator[None]:
    """Set kernel.* sysctls (``name=value``, several joined by ``&``; none for an empty string), and restore them."""
    with ExitStack() as restore:
        for text in filter(None, assignment.split("&")):
            sysctl, _, new_value = text.partition("=")
            restore.callback((_SYSCTLS / sysctl).write_text, str(value(sysctl)))
            (_SYSCTLS / sysctl).write_text(new_value)
        yield


@contextmanager
def resources(programs: Iterable[Program]) -> Iterator[Resources]:
    """Create, with every capability, what the probes inherit."""
    with ExitStack() as stack:
        # Without memcg accounting, a map is charged to RLIMIT_MEMLOCK, which is no capability. libbpf raises the limit
        # with its first load, once, for this process and its children (bpf.c, bump_rlimit_memlock()), so nothing may
        # restore it: later loads would fail.
        fixtures = stack.enter_context(steps.loaded(steps.object_path("engine/capabilities")))
        with Btf.of_kernel() as kernel:
            loadables = {
                name: bpf_calls.Loadable.of(fixtures.programs[f"type_{name}"], kernel.function(target) if target else 0)
                for name, target in FIXTURES.items()
            }
            ops = StructOps.of(kernel, bpf_calls.load_btf(stack))
        inherited = ("array", "ringbuf", "perf_event_array", "sockmap")
        maps = {name: bpf_calls.create_map(MAPS[name], stack) for name in inherited}
        shipped_maps = {}
        for program in programs:
            name = program.object
            shipped = stack.enter_context(steps.loaded(steps.object_path(name), program.program))
            loadables[name] = bpf_calls.Loadable.of(shipped.programs[program.program])
            shipped_maps[name] = shipped.specs
            maps |= {f"{name} {of}": fd for of, fd in shipped.maps.items()}
        _keep_hooks_busy(programs, loadables, stack)
        private, public = (stack.enter_context(_bpffs(mode)) for mode in ("0700", "1777"))
        for folder in (private, public):
            bpf_calls.pin(maps["array"], folder / "map", stack)
        yield Resources(
            tuple(programs),
            loadables,
            shipped_maps,
            maps,
            map_id=bpf_calls.next_id("map"),
            program_id=bpf_calls.next_id("prog"),
            cgroup=stack.enter_context(cgroup()),
            private=private,
            public=public,
            tracepoint=perf.tracepoint_number(TRACEPOINT),
            uprobe=perf.file_offset(library.libbpf().libbpf_major_version),
            address=perf.address_of(capability_probes.SYMBOL),
            struct_ops=ops,
        )


def _keep_hooks_busy(
    programs: Iterable[Program], loadables: Mapping[str, bpf_calls.Loadable], stack: ExitStack
) -> None:
    """Keep one program attached at every hook, where no probe sees it.

    Attaching the first and detaching the last program of a hook makes the kernel patch its own text (static keys,
    ftrace), which an emulator translates again, and wait for every task (unregister_ftrace_direct(), a second each
    time). A further program causes neither.

    Where fentry and LSM programs attach there is a kprobe too. For a further program of a trampoline
    modify_ftrace_direct() adds an ftrace_ops to the function and removes it again. With only one besides, that changes
    what the function calls, and each time ftrace goes through all 40,000 functions for those that have to be patched
    (ftrace_replace_code()): 130 ms for attaching and detaching under emulation, 35 ms with the kprobe.
    """
    # separate programs, because a hook accepts each program only once
    own = {name: bpf_calls.load(loadables[name], stack) for name in FIXTURES}
    symbols = [capability_probes.SYMBOL, *(program.symbol for program in programs if program.type == "kprobe")]
    for symbol in dict.fromkeys([*symbols, *filter(None, FIXTURES.values())]):
        perf.attach(own["kprobe"], perf.kprobe_event(symbol, stack))
    tracepoint = perf.tracepoint_event(perf.tracepoint_number(TRACEPOINT), stack)
    perf.attach(own["tracepoint"], tracepoint)
    bpf_calls.raw_tracepoint(own["raw_tracepoint"], "sys_enter", stack)
    bpf_calls.link(own["fentry"], 0, "trace_fentry", stack)
    bpf_calls.link(own["lsm"], 0, "lsm_mac", stack)
    for kind, hook in CGROUP_HOOKS.items():
        bpf_calls.cgroup(own[kind], stack.enter_context(cgroup()), hook, stack)
    elsewhere = stack.enter_context(namespace())
    with elsewhere.entered(), ExitStack() as here:
        # released with its namespace
        bpf_calls.xdp_netlink(own["xdp"], LOOPBACK, here)
        classifier.attach(own["sched_cls"], LOOPBACK, here)
        here.pop_all()
        bpf_calls.link(own["sk_lookup"], elsewhere.fd, "sk_lookup", stack)


@contextmanager
def _bpffs(mode: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=f"bpffs-{mode}-") as name:
        # so that an unprivileged user can reach the mount below
        Path(name).chmod(0o755)
        folder = Path(name, "bpf")
        folder.mkdir()
        subprocess.run(["mount", "-t", "bpf", "-o", f"mode={mode}", "bpf", folder], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True)


def who(features: Collection[str]) -> tuple[str, ...]:
    """Return the users for a kernel with these features."""
    return (users.ROOT, users.NOBODY_NAME, users.USERNS, *([users.TOKEN] if "bpf_token" in features else []))


def tried(person: str, assignment: str, facts: GuestFacts) -> list[Probe]:
    """Return the probes that a user runs under a setting with every set: those that the setting can affect.

    A token affects only probes that take one. Other results are derived (`shared.outcomes.capability_table`):
    loading and attaching by one process, except with a token, which a program keeps after loading; and attaching a
    shipped program under a sysctl, which has the results of its type.
    """
    probes = _concerned(person, assignment, facts)
    return [probe for probe in probes if not (assignment and probe.shipped and probe.attaches)]


def searched(person: str, assignment: str, facts: GuestFacts) -> list[Probe]:
    """Return the probes for which only minimal sets are searched: attaching shipped programs under a sysctl."""
    probes = _concerned(person, assignment, facts)
    return [probe for probe in probes if assignment and probe.shipped and probe.attaches]


def _concerned(person: str, assignment: str, facts: GuestFacts) -> list[Probe]:
    affected = {text.partition("=")[0] for text in assignment.split("&") if text}
    probes = [
        probe for probe in capability_probes.probes(facts.programs) if affected <= _sysctls(probe, facts.features)
    ]
    if person == users.TOKEN:
        return [probe for probe in probes if probe.takes_token]
    return [probe for probe in probes if not probe.composed]


def _sysctls(probe: Probe, features: Collection[str]) -> set[str]:
    """Return the sysctls that can change a probe's result on a kernel with these features."""
    unchanged = {BPF_SYSCTL} if "unpriv_fd_commands" in features and not probe.creates else set()
    return set(probe.sysctls) - unchanged


def derived(person: str, assignment: str, facts: GuestFacts) -> list[Probe]:
    """Return the probes whose results under a setting are derived and not measured."""
    names = {probe.name for probe in tried(person, assignment, facts)}
    return [
        probe
        for probe in capability_probes.probes(facts.programs)
        if probe.name not in names and (probe.takes_token or person != users.TOKEN)
    ]


@dataclass(frozen=True, slots=True)
class Part:
    """The results of one user under one setting."""

    #: probe -> user -> the result with each set
    cells: Lines
    #: for the shipped programs, probe -> user -> the minimal sets
    minimum: Lines
    #: CPU seconds of the guest
    seconds: float


def measure(resources: Resources, person: str, assignment: str, facts: GuestFacts) -> Part:
    """Run, as one user, the probes that a setting affects, under that setting.

    The parts are small because a guest that reports no test for long counts as hung, and detaching a perf link waits
    for grace periods, on a real-time kernel 0.3 s each.
    """
    before = _busy()
    context = Context(person, assignment)
    with setting(assignment):
        results, least = users.measured(
            person, resources, tried(person, assignment, facts), searched(person, assignment, facts)
        )
    cells = {name: {context: capabilities.rules(answers)} for name, answers in results.items()}
    minimum = {name: {context: capabilities.show_sets(sets)} for name, sets in least.items()}
    return Part(cells, minimum, _busy() - before)


def differences(resources: Resources, person: str, expected: Mapping[Probe, capabilities.Answers]) -> list[str]:
    """Run probes under the current sysctls with the witnesses of each answer; describe every other result."""
    results = users.answers(
        person, resources, [(probe, capabilities.witnesses(answers)) for probe, answers in expected.items()]
    )
    return [
        f"{probe.name} as {person} with {capabilities.show(caps)}: expected {answers[caps]}, found {answer}"
        for probe, answers in expected.items()
        for caps, answer in results[probe.name].items()
        if answer != answers[caps]
    ]


def joined(parts: Iterable[Part], programs: tuple[Program, ...]) -> Table:
    """Join the parts to the whole table."""
    cells: dict[str, dict[Context, str]] = {}
    minimum: dict[str, dict[Context, str]] = {}
    for part in parts:
        for whole, lines in ((cells, part.cells), (minimum, part.minimum)):
            for name, contexts in lines.items():
                whole.setdefault(name, {}).update(contexts)
    defaults = {sysctl: value(sysctl) for sysctl in (BPF_SYSCTL, PERF_SYSCTL)}
    order = [probe.name for probe in capability_probes.probes(programs)]
    return capability_table.derived(Table(defaults, SETTINGS, minimum, cells), order, capability_probes.like(programs))


def _busy() -> float:
    """Return the CPU seconds of the guest's processors without idle and iowait (proc(5), /proc/stat)."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
