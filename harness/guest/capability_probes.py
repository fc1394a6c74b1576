"""What the capability table tries: maps, loads, attachments by each path, pins, reads, commands.

A probe makes one step in a process whose effective set was just chosen; what the step needs from others (a loaded
program, an open map, a tracepoint's number) was made before with every capability and handed down.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.guest import bpf_calls, perf, steps
from harness.guest.loaders.libbpf import possible_cpus

#: the stage in which a process attaches what it has loaded itself
BOTH = "load+attach"
BPF_SYSCTL, PERF_SYSCTL = "unprivileged_bpf_disabled", "perf_event_paranoid"
#: every network namespace has it, under this index: linux, LOOPBACK_IFINDEX
LOOPBACK = 1
_PAGE = 4096

MAPS = {
    "array": steps.MapSpec("array", 4, 4, 1),
    "hash": steps.MapSpec("hash", 4, 4, 1),
    "lru_hash": steps.MapSpec("lru_hash", 4, 4, 1),
    "percpu_array": steps.MapSpec("percpu_array", 4, 4, 1),
    "ringbuf": steps.MapSpec("ringbuf", 0, 0, _PAGE),
    "perf_event_array": steps.MapSpec("perf_event_array", 4, 4, 1),
    "lpm_trie": steps.MapSpec("lpm_trie", 8, 4, 1),
    "stack_trace": steps.MapSpec("stack_trace", 4, 8, 1),
    "devmap": steps.MapSpec("devmap", 4, 4, 1),
    "xskmap": steps.MapSpec("xskmap", 4, 4, 1),
    "sockmap": steps.MapSpec("sockmap", 4, 4, 1),
}
#: BPF_F_NO_PREALLOC, without which an LPM trie is refused (lpm_trie.c, trie_alloc())
_MAP_FLAGS = {"lpm_trie": 1}
#: the programs of fixtures/capabilities (``type_xdp``), and the function that the last two are for
FIXTURES = {
    "socket_filter": "",
    "xdp": "",
    "sched_cls": "",
    "cgroup_skb": "",
    "kprobe": "",
    "tracepoint": "",
    "raw_tracepoint": "",
    "fentry": "bpf_fentry_test1",
    "lsm": "task_setnice",
}
#: types of which each program is attached only once in its life on kernels before 5.13: bpf_tracing_prog_attach()
#: answers ENOENT to the second time (f3a95075549e, "bpf: Allow trampoline re-attach for tracing and lsm programs")
ATTACHED_ONCE = ("fentry", "lsm")
#: shipped object -> the program that stands for it
SHIPPED = {
    "xdp_packet_counter": "xdp_packet_counter",
    "kprobe_execve": "trace_execve",
    "tracepoint_network": "trace_connect_enter",
}
#: a function that only loading a module calls; near the start of the kernel, where older ones find its name sooner
SYMBOL = "do_one_initcall"
TRACEPOINT = "syscalls/sys_enter_connect"


@dataclass(frozen=True, slots=True)
class Given:
    """What every probing process inherits."""

    loadables: Mapping[str, bpf_calls.Loadable]
    #: shipped object -> what it needs of maps
    shipped_maps: Mapping[str, tuple[steps.MapSpec, ...]]
    #: map type or shipped map -> fd
    maps: Mapping[str, int]
    map_id: int
    program_id: int
    cgroup: int
    #: a bpffs as distributions mount it, of root alone, and one for everybody
    private: Path
    public: Path
    tracepoint: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a probe runs."""

    given: Given
    undo: ExitStack
    token: int | None = None
    #: an open bpffs that a token can be made of
    delegating: int | None = None

    #: programs for one try each, of types that need that
    unused: Mapping[str, list[int]] = field(default_factory=dict)

    def inherited(self, name: str) -> int:
        """Return the fd of a program that a privileged process has loaded."""
        return self.unused[name].pop() if name in self.unused else self.given.loadables[name].program.fd

    def load(self, name: str) -> int:
        """Load a program here and now."""
        return bpf_calls.load(self.given.loadables[name], self.undo, self.token)


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing that is tried."""

    #: what: a map or program type, a shipped program, ``bpf`` for commands that are of none
    subject: str
    #: which stage, and by which path
    stage: str
    run: Callable[[Place], object]
    #: the sysctls under whose every value it is tried
    sysctls: tuple[str, ...] = (BPF_SYSCTL,)
    #: whether it can use a token
    takes_token: bool = False

    @property
    def name(self) -> str:
        """The entry's name in the table."""
        return f"{self.subject} {self.stage}"

    @property
    def single(self) -> bool:
        """Whether it is one stage; what takes two depends on the sysctls of both."""
        return not self.stage.startswith(BOTH)

    @property
    def shipped(self) -> bool:
        """Whether it is of a shipped program, of which the minimal sets are wanted."""
        return self.subject in SHIPPED


#: program fd, place: attach
_Attach = Callable[[int, Place], object]


def _paths(kind: str, symbol: str) -> dict[str, _Attach]:
    """Return every path by which a program of that type can be attached."""

    def perf_paths(event: Callable[[Place], int], in_tracefs: Callable[[Place], int]) -> dict[str, _Attach]:
        return {
            "perf": lambda program, place: perf.attach(program, event(place)),
            "tracefs": lambda program, place: perf.attach(
                program, perf.tracepoint_event(in_tracefs(place), place.undo)
            ),
            "link": lambda program, place: bpf_calls.link(program, event(place), "perf_event", place.undo),
        }

    every: dict[str, dict[str, _Attach]] = {
        "socket_filter": {"setsockopt": lambda program, place: bpf_calls.socket_filter(program, place.undo)},
        "xdp": {
            "netlink": lambda program, place: bpf_calls.xdp_netlink(program, LOOPBACK, place.undo),
            "link": lambda program, place: bpf_calls.link(program, LOOPBACK, "xdp", place.undo),
        },
        "sched_cls": {
            "clsact": lambda program, place: bpf_calls.clsact(program, LOOPBACK, place.undo),
            "tcx": lambda program, place: bpf_calls.link(program, LOOPBACK, "tcx_ingress", place.undo),
        },
        "cgroup_skb": {
            "prog_attach": lambda program, place: bpf_calls.cgroup(
                program, place.given.cgroup, "cgroup_inet_ingress", place.undo
            ),
            "link": lambda program, place: bpf_calls.link(
                program, place.given.cgroup, "cgroup_inet_ingress", place.undo
            ),
        },
        "kprobe": perf_paths(
            lambda place: perf.kprobe_event(symbol, place.undo),
            lambda place: perf.tracefs_kprobe(symbol, place.undo),
        ),
        "tracepoint": perf_paths(
            lambda place: perf.tracepoint_event(place.given.tracepoint, place.undo),
            lambda _: perf.tracepoint_number(TRACEPOINT),
        ),
        "raw_tracepoint": {"link": lambda program, place: bpf_calls.raw_tracepoint(program, "sys_enter", place.undo)},
        "fentry": {"link": lambda program, place: bpf_calls.link(program, 0, "trace_fentry", place.undo)},
        "lsm": {"link": lambda program, place: bpf_calls.link(program, 0, "lsm_mac", place.undo)},
    }
    return every[kind]


_SHIPPED_AS = {
    "xdp_packet_counter": ("xdp", ""),
    "kprobe_execve": ("kprobe", "__x64_sys_execve"),
    "tracepoint_network": ("tracepoint", ""),
}


def probes() -> Iterator[Probe]:
    """Yield everything that is tried, in the table's order."""
    for kind in MAPS:
        yield Probe(kind, "map_create", _creates(kind), takes_token=True)
    for name in [*FIXTURES, *SHIPPED]:
        kind, symbol = _SHIPPED_AS.get(name, (name, SYMBOL))
        yield from _of_program(name, kind, symbol)
    yield from _of_maps()
    yield from _commands()


def _creates(kind: str) -> Callable[[Place], object]:
    return lambda place: bpf_calls.create_map(MAPS[kind], place.undo, place.token, flags=_MAP_FLAGS.get(kind, 0))


def _of_program(name: str, kind: str, symbol: str) -> Iterator[Probe]:
    if name in SHIPPED:
        yield Probe(name, "map_create", lambda place: _create_shipped(name, place), takes_token=True)
    yield Probe(name, "load", lambda place: place.load(name), takes_token=True)

    def inherited(attach: _Attach) -> Callable[[Place], object]:
        return lambda place: attach(place.inherited(name), place)

    def own(attach: _Attach) -> Callable[[Place], object]:
        return lambda place: attach(place.load(name), place)

    for path, attach in _paths(kind, symbol).items():
        yield Probe(name, f"attach {path}", inherited(attach), _attach_sysctls(kind, path))
        sysctls = (PERF_SYSCTL,) if kind in {"kprobe", "tracepoint"} and name in SHIPPED else ()
        yield Probe(name, f"{BOTH} {path}", own(attach), sysctls, takes_token=True)
    if name in SHIPPED:
        yield Probe(name, "pin", lambda place: _pin(place.given.loadables[name].program.fd, place.given.private, place))
        yield Probe(name, "read", lambda place: _read_shipped(name, place))


def _attach_sysctls(kind: str, path: str) -> tuple[str, ...]:
    """By netlink, setsockopt, ioctl or tracefs there is no bpf(); suites/capabilities checks that by measuring."""
    bpf = (BPF_SYSCTL,) if path in {"link", "tcx", "prog_attach", "clsact"} else ()
    return (*bpf, PERF_SYSCTL) if kind in {"kprobe", "tracepoint"} else bpf


def _create_shipped(name: str, place: Place) -> None:
    for spec in place.given.shipped_maps[name]:
        bpf_calls.create_map(spec, place.undo, place.token)


def _read_shipped(name: str, place: Place) -> None:
    """Read what the program reports: its events where it has a ring buffer, otherwise its counters."""
    ring = place.given.maps.get(f"{name} events")
    if ring is not None:
        bpf_calls.info(ring)  # libbpf asks for the size
        bpf_calls.map_ringbuf(ring, 256 * 1024, place.undo)
    else:
        counters = next(spec for spec in place.given.shipped_maps[name] if spec.type == "percpu_array")
        # the kernel writes a value for each CPU, each rounded up to eight bytes (bpf_percpu_array_copy())
        size = (counters.value + 7) // 8 * 8 * possible_cpus()
        steps.lookup(place.given.maps[f"{name} counters"], replace(counters, value=size), key=0)


def _pin(fd: int, folder: Path, place: Place) -> None:
    bpf_calls.pin(fd, folder / "step", place.undo)


def _of_maps() -> Iterator[Probe]:
    def fd(place: Place) -> int:
        return place.given.maps["array"]

    yield Probe("array", "pin private", lambda place: _pin(fd(place), place.given.private, place))
    yield Probe("array", "pin public", lambda place: _pin(fd(place), place.given.public, place))
    yield Probe(
        "array", "open pinned private", lambda place: bpf_calls.open_pin(place.given.private / "map", place.undo)
    )
    yield Probe("array", "open pinned public", lambda place: bpf_calls.open_pin(place.given.public / "map", place.undo))
    yield Probe("array", "lookup", lambda place: steps.lookup(fd(place), MAPS["array"], key=0))
    yield Probe("array", "update", lambda place: bpf_calls.update(fd(place), bytes(4)))
    yield Probe("ringbuf", "read", lambda place: bpf_calls.map_ringbuf(place.given.maps["ringbuf"], _PAGE, place.undo))
    yield Probe("perf_event_array", "read open", lambda place: perf.output_event(place.undo), (BPF_SYSCTL, PERF_SYSCTL))
    yield Probe("perf_event_array", "read", _read_perf, (BPF_SYSCTL, PERF_SYSCTL))


def _read_perf(place: Place) -> None:
    event = perf.output_event(place.undo)
    bpf_calls.update(place.given.maps["perf_event_array"], event.to_bytes(4, "little"))


def _commands() -> Iterator[Probe]:
    yield Probe("bpf", "list programs", lambda _: bpf_calls.next_id("prog"))
    yield Probe("bpf", "list maps", lambda _: bpf_calls.next_id("map"))
    yield Probe("bpf", "open program by id", lambda p: bpf_calls.open_by_id("prog", p.given.program_id, p.undo))
    yield Probe("bpf", "open map by id", lambda p: bpf_calls.open_by_id("map", p.given.map_id, p.undo))
    yield Probe("bpf", "info of program", lambda p: bpf_calls.info(p.given.loadables["xdp"].program.fd))
    yield Probe("bpf", "token create", _create_token, takes_token=True)


def _create_token(place: Place) -> None:
    """Of a delegating bpffs where there is one; elsewhere of bpffs that delegates nothing."""
    if place.delegating is not None:
        place.undo.callback(os.close, steps.create_token(place.delegating))
        return
    bpffs = os.open(place.given.public, os.O_RDONLY | os.O_CLOEXEC)
    place.undo.callback(os.close, bpffs)
    place.undo.callback(os.close, steps.create_token(bpffs))
