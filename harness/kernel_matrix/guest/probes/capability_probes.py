"""What the capability table tries: maps, loads, attachments by each path, pins, reads, commands.

A probe makes one step in a process whose effective set was just chosen; what the step needs from others (a loaded
program, an open map, a tracepoint's number) was made before with every capability and handed down.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from kernel_matrix.guest.bpf import bpf_calls, perf, steps, struct_ops
from kernel_matrix.guest.bpf.loaders.libbpf import possible_cpus
from kernel_matrix.guest.probes.capability_paths import TRACEPOINT, Attach, paths
from kernel_matrix.guest.probes.capability_place import BPF_SYSCTL, PERF_SYSCTL, Place, Probe
from kernel_matrix.shared.capability_table import ATTACH, BOTH, LOAD
from kernel_matrix.shared.project import Program

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
#: the programs of engine/capabilities (``type_xdp``), and the kernel's function that some are loaded for
FIXTURES = {
    "socket_filter": "",
    "bounded_loop": "",
    "bpf_call": "",
    "xdp": "",
    "sched_cls": "",
    "cgroup_skb": "",
    "cgroup_sock": "",
    "cgroup_sock_addr": "",
    "cgroup_sockopt": "",
    "sk_lookup": "",
    "sk_msg": "",
    "kprobe": "",
    "kprobe_multi": "",
    "uprobe": "",
    "tracepoint": "",
    "raw_tracepoint": "",
    "perf_event": "",
    "fentry": "bpf_fentry_test1",
    "lsm": "bpf_lsm_task_setnice",
}
#: those that differ from a type's program by what they do: how a program is attached does not depend on that
LOADED_ONLY = ("bounded_loop", "bpf_call")
#: types of which each program is attached only once in its life on kernels before 5.13: bpf_tracing_prog_attach()
#: answers ENOENT to the second time (f3a95075549e, "bpf: Allow trampoline re-attach for tracing and lsm programs")
ATTACHED_ONCE = ("fentry", "lsm")
#: a function that only loading a module calls; near the start of the kernel, where older ones find its name sooner
SYMBOL = "do_one_initcall"


def like(programs: Iterable[Program]) -> dict[str, str]:
    """Return of each attachment of a shipped program that of its type's: under a sysctl they answer alike."""
    return {
        f"{each.object} {ATTACH} {path}": f"{each.type} {ATTACH} {path}"
        for each in programs
        for path in paths(each.type, each.symbol)
    }


def probes(programs: Iterable[Program]) -> Iterator[Probe]:
    """Yield everything that is tried, in the table's order: of each type, and of the programs that are shipped."""
    for kind in MAPS:
        yield Probe(kind, "map_create", _creates(kind), takes_token=True)
    for name in FIXTURES:
        yield from _of_program(name, name, SYMBOL)
    for shipped in programs:
        yield from _of_shipped(shipped)
    yield from _of_struct_ops()
    yield from _of_maps()
    yield from _commands()


def _creates(kind: str) -> Callable[[Place], object]:
    return lambda place: bpf_calls.create_map(MAPS[kind], place.undo, place.token, flags=_MAP_FLAGS.get(kind, 0))


#: of a kprobe or a tracepoint the answer depends on perf_event_open() too
_BY_PERF = ("kprobe", "tracepoint", "uprobe", "perf_event")


def _of_program(name: str, kind: str, symbol: str) -> Iterator[Probe]:
    yield Probe(name, LOAD, lambda place: place.load(name), takes_token=True)

    def inherited(attach: Attach) -> Callable[[Place], object]:
        return lambda place: attach(place.inherited(name), place)

    def own(attach: Attach) -> Callable[[Place], object]:
        return lambda place: attach(place.loaded(name), place)

    for path, attach in {} if name in LOADED_ONLY else paths(kind, symbol).items():
        sysctls = _attach_sysctls(kind, path)
        yield Probe(name, f"{ATTACH} {path}", inherited(attach), sysctls)
        either = (BPF_SYSCTL, *(each for each in sysctls if each != BPF_SYSCTL))
        yield Probe(name, f"{BOTH} {path}", own(attach), either, takes_token=True)


def _of_shipped(shipped: Program) -> Iterator[Probe]:
    """Yield what a loader does with an object, from its maps to what it reads."""
    name = shipped.object
    found = [Probe(name, "map_create", lambda place: _create_shipped(name, place), takes_token=True)]
    found += _of_program(name, shipped.type, shipped.symbol)
    found.append(
        Probe(name, "pin", lambda place: _pin(place.given.loadables[name].program.fd, place.given.private, place))
    )
    found.append(Probe(name, "read", lambda place: _read_shipped(name, place)))
    if shipped.type == "tracepoint":
        found.append(Probe(name, "read id", lambda _: perf.tracepoint_number(TRACEPOINT), ()))
    yield from (replace(probe, shipped=True) for probe in found)


def _attach_sysctls(kind: str, path: str) -> tuple[str, ...]:
    """By netlink, setsockopt, ioctl or tracefs there is no bpf(); measuring checks that."""
    bpf = (BPF_SYSCTL,) if path in {"link", "tcx", "prog_attach", "clsact"} else ()
    return (*bpf, PERF_SYSCTL) if kind in _BY_PERF else bpf


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


def _of_struct_ops() -> Iterator[Probe]:
    def create(place: Place) -> None:
        struct_ops.create_map(place.given.struct_ops, place.undo, place.token)

    def load(place: Place) -> None:
        struct_ops.load(place.given.struct_ops, place.undo, place.token)

    yield Probe("struct_ops", "map_create", create, takes_token=True)
    yield Probe("struct_ops", LOAD, load, takes_token=True)


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
    yield Probe("bpf", "test run", lambda p: bpf_calls.test_run(p.given.loadables["xdp"].program.fd))
    yield Probe("bpf", "load BTF", lambda p: bpf_calls.load_btf(p.undo, p.token), takes_token=True)
    yield Probe("bpf", "query cgroup", lambda p: bpf_calls.attached_to(p.given.cgroup, "cgroup_inet_ingress"))
    yield Probe("bpf", "token create", _create_token, takes_token=True)


def _create_token(place: Place) -> None:
    """Of a delegating bpffs where there is one; elsewhere of bpffs that delegates nothing."""
    if place.delegating is not None:
        place.undo.callback(os.close, steps.create_token(place.delegating))
        return
    bpffs = os.open(place.given.public, os.O_RDONLY | os.O_CLOEXEC)
    place.undo.callback(os.close, bpffs)
    place.undo.callback(os.close, steps.create_token(bpffs))
