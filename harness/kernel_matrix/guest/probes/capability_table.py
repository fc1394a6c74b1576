"""Measuring the capability table of the running kernel."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kernel_matrix.guest.bpf import bpf_calls, classifier, library, perf, steps
from kernel_matrix.guest.bpf.btf import Btf
from kernel_matrix.guest.bpf.struct_ops import StructOps
from kernel_matrix.guest.probes import capability_probes, users
from kernel_matrix.guest.probes.capability_paths import CGROUP_HOOKS, LOOPBACK, TRACEPOINT
from kernel_matrix.guest.probes.capability_place import BPF_SYSCTL, PERF_SYSCTL, Given, Probe
from kernel_matrix.guest.probes.capability_probes import FIXTURES, MAPS
from kernel_matrix.guest.system.netns import namespace
from kernel_matrix.shared import capabilities, capability_table
from kernel_matrix.shared.capability_table import Context, Lines, Table
from kernel_matrix.shared.features import GuestFacts
from kernel_matrix.shared.project import Program

_SYSCTLS = Path("/proc/sys/kernel")
#: what is tried besides the defaults; unprivileged_bpf_disabled=1 is final, so it has a test of its own
_ALONE = (f"{BPF_SYSCTL}=0", *(f"{PERF_SYSCTL}={value}" for value in (-1, 0, 1, 2)))
#: two at once, for what depends on both: each may be what refuses a set that the other lets through
_TOGETHER = tuple(f"{_ALONE[0]}&{other}" for other in _ALONE[1:])
SETTINGS = (*_ALONE, *_TOGETHER)


def value(sysctl: str) -> int:
    """Read a kernel.* sysctl."""
    return int((_SYSCTLS / sysctl).read_text())


@contextmanager
def setting(assignment: str) -> Iterator[None]:
    """Set kernel.* sysctls (``name=value``, several joined by ``&``; none for an empty string), and put them back."""
    with ExitStack() as restore:
        for each in filter(None, assignment.split("&")):
            sysctl, _, wanted = each.partition("=")
            restore.callback((_SYSCTLS / sysctl).write_text, str(value(sysctl)))
            (_SYSCTLS / sysctl).write_text(wanted)
        yield


@contextmanager
def given(programs: Iterable[Program]) -> Iterator[Given]:
    """Make, with every capability, what the probes inherit."""
    with ExitStack() as stack:
        # Before memory control groups a map is charged to the user's limit, which is no capability: libbpf lifts it
        # with the first that it loads, once, for this process and what it forks (bpf.c, bump_rlimit_memlock()). So who
        # puts it back takes from all that follows the means to load.
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
        for each in programs:
            name = each.object
            shipped = stack.enter_context(steps.loaded(steps.object_path(name), each.program))
            loadables[name] = bpf_calls.Loadable.of(shipped.programs[each.program])
            shipped_maps[name] = shipped.specs
            maps |= {f"{name} {of}": fd for of, fd in shipped.maps.items()}
        _keep_hooks_busy(programs, loadables, stack)
        private, public = (stack.enter_context(_bpffs(mode)) for mode in ("0700", "1777"))
        for folder in (private, public):
            bpf_calls.pin(maps["array"], folder / "map", stack)
        yield Given(
            tuple(programs),
            loadables,
            shipped_maps,
            maps,
            map_id=bpf_calls.next_id("map"),
            program_id=bpf_calls.next_id("prog"),
            cgroup=stack.enter_context(_cgroup()),
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
    """Have something attached at every hook all the time, in places that no probe sees.

    The first and the last program of a hook make the kernel patch its own text (static keys, ftrace), which an emulator
    has to translate anew, and wait for every task (unregister_ftrace_direct(), a second each time); one that
    comes and goes beside another does neither.
    """
    # programs of their own: a hook takes each only once
    own = {name: bpf_calls.load(loadables[name], stack) for name in FIXTURES}
    symbols = [capability_probes.SYMBOL, *(each.symbol for each in programs if each.type == "kprobe")]
    for symbol in dict.fromkeys(symbols):
        perf.attach(own["kprobe"], perf.kprobe_event(symbol, stack))
    tracepoint = perf.tracepoint_event(perf.tracepoint_number(TRACEPOINT), stack)
    perf.attach(own["tracepoint"], tracepoint)
    bpf_calls.raw_tracepoint(own["raw_tracepoint"], "sys_enter", stack)
    bpf_calls.link(own["fentry"], 0, "trace_fentry", stack)
    bpf_calls.link(own["lsm"], 0, "lsm_mac", stack)
    for kind, hook in CGROUP_HOOKS.items():
        bpf_calls.cgroup(own[kind], stack.enter_context(_cgroup()), hook, stack)
    elsewhere = stack.enter_context(namespace())
    with elsewhere.entered(), ExitStack() as here:
        # goes with its namespace
        bpf_calls.xdp_netlink(own["xdp"], LOOPBACK, here)
        classifier.attach(own["sched_cls"], LOOPBACK, here)
        here.pop_all()
        bpf_calls.link(own["sk_lookup"], elsewhere.fd, "sk_lookup", stack)


@contextmanager
def _bpffs(mode: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=f"bpffs-{mode}-") as name:
        # a user that owns nothing reaches what is mounted below
        Path(name).chmod(0o755)
        folder = Path(name, "bpf")
        folder.mkdir()
        subprocess.run(["mount", "-t", "bpf", "-o", f"mode={mode}", "bpf", folder], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["umount", folder], check=True)


@contextmanager
def _cgroup() -> Iterator[int]:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    root = next(fields[1] for fields in mounts if fields[2] == "cgroup2")
    folder = Path(tempfile.mkdtemp(dir=root))
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
    finally:
        folder.rmdir()


def who(features: Collection[str]) -> tuple[str, ...]:
    """Return who tries on a kernel with these features."""
    return (users.ROOT, users.NOBODY_NAME, users.USERNS, *([users.TOKEN] if "bpf_token" in features else []))


def tried(person: str, assignment: str, facts: GuestFacts) -> list[Probe]:
    """Return what one of those who try tries under a setting with every set: what the setting can change.

    A token makes a difference to what takes it only. The rest is derived (kernel_matrix.shared.capability_table): what
    a process attaches that it has loaded itself, but with a token, which a program that was loaded with it carries
    along; and under a sysctl how a shipped program is attached, which is as its type's.
    """
    probes = _concerned(person, assignment, facts)
    return [probe for probe in probes if not (assignment and probe.shipped and probe.attaches)]


def searched(person: str, assignment: str, facts: GuestFacts) -> list[Probe]:
    """Return of what only the minimal sets are searched: how shipped programs are attached under a sysctl."""
    probes = _concerned(person, assignment, facts)
    return [probe for probe in probes if assignment and probe.shipped and probe.attaches]


def _concerned(person: str, assignment: str, facts: GuestFacts) -> list[Probe]:
    sysctls = {each.partition("=")[0] for each in assignment.split("&") if each}
    probes = [probe for probe in capability_probes.probes(facts.programs) if sysctls <= _sysctls(probe, facts.features)]
    if person == users.TOKEN:
        return [probe for probe in probes if probe.takes_token]
    return [probe for probe in probes if not probe.composed]


def _sysctls(probe: Probe, features: Collection[str]) -> set[str]:
    """Return the sysctls that can change what comes of a probe on a kernel with these features."""
    unchanged = {BPF_SYSCTL} if "unpriv_fd_commands" in features and not probe.creates else set()
    return set(probe.sysctls) - unchanged


def derived(person: str, assignment: str, facts: GuestFacts) -> list[Probe]:
    """Return of what the table says what came of it under a setting, though it was not tried."""
    names = {probe.name for probe in tried(person, assignment, facts)}
    return [
        probe
        for probe in capability_probes.probes(facts.programs)
        if probe.name not in names and (probe.takes_token or person != users.TOKEN)
    ]


@dataclass(frozen=True, slots=True)
class Part:
    """What came of everything that one of those who try tried under one setting."""

    #: probe -> who -> what came of each set
    cells: Lines
    #: of the shipped programs: probe -> who -> the minimal sets
    minimum: Lines
    #: what it took of the guest's processors, in seconds
    seconds: float


def measure(things: Given, person: str, assignment: str, facts: GuestFacts) -> Part:
    """Try, as one of those who try, what has to do with a setting, under that setting, on a kernel of these features.

    In parts so small because a detached perf link waits for grace periods, on a real-time kernel 0.3 s each, and a test
    is the word of a guest that is waited for.
    """
    before = _busy()
    context = Context(person, assignment)
    with setting(assignment):
        found, least = users.measured(
            person, things, tried(person, assignment, facts), searched(person, assignment, facts)
        )
    cells = {name: {context: capabilities.rules(answers)} for name, answers in found.items()}
    minimum = {name: {context: capabilities.show_sets(sets)} for name, sets in least.items()}
    return Part(cells, minimum, _busy() - before)


def differences(things: Given, person: str, expected: Mapping[Probe, capabilities.Answers]) -> list[str]:
    """Try probes under the sysctls as they are, with the sets that witness each answer; name what came otherwise."""
    found = users.answers(
        person, things, [(probe, capabilities.witnesses(answers)) for probe, answers in expected.items()]
    )
    return [
        f"{probe.name} as {person} with {capabilities.show(caps)}: expected {answers[caps]}, found {answer}"
        for probe, answers in expected.items()
        for caps, answer in found[probe.name].items()
        if answer != answers[caps]
    ]


def joined(parts: Iterable[Part], programs: Iterable[Program]) -> Table:
    """Make the table of its parts."""
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
    """Return the seconds that the guest's processors have worked: neither idle nor waiting (proc(5), /proc/stat)."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
