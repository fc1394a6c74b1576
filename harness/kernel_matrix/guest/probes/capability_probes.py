"""The probes of the capability table: maps, loads, attachments by each path, pins, reads, commands.

A probe makes one step in a process whose effective set was just chosen. What the step requires (a loaded program, an
open map, a tracepoint's number) was created before with every capability, and is inherited.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.calls import bpf_calls, perf, struct_ops
from kernel_matrix.guest.bpf.loaders.libbpf import possible_cpus
from kernel_matrix.guest.probes.capability_paths import TRACEPOINT, Attach, paths
from kernel_matrix.guest.probes.capability_place import BPF_SYSCTL, PERF_SYSCTL, Place, Probe
from kernel_matrix.shared.outcomes.capability_table import ATTACH, BOTH, LOAD
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
#: the programs of engine/capabilities (``type_xdp``), and the kernel function for which some are loaded
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
#: programs that differ from their type's only in their code, which does not affect attaching
LOADED_ONLY = ("bounded_loop", "bpf_call")
#: types whose programs can be attached only once on kernels before 5.13: bpf_tracing_prog_attach() returns ENOENT the
#: second time (f3a95075549e, "bpf: Allow trampoline re-attach for tracing and lsm programs")
ATTACHED_ONCE = ("fentry", "lsm")
#: a function that is called only when a module is loaded; at a low address, so that older kernels find its name soon
SYMBOL = "do_one_initcall"


def like(programs: Iterable[Program]) -> dict[str, str]:
    """Map each attachment of a shipped program to that of its type, which has the same results under a sysctl."""
    return {
        f"{program.object} {ATTACH} {path}": f"{program.type} {ATTACH} {path}"
        for program in programs
        for path in paths(program.type, program.symbol)
    }


@functools.cache
def probes(programs: tuple[Program, ...]) -> tuple[Probe, ...]:
    """Return all probes in the table's order: for each type, and for each shipped program."""
    return tuple(_probes(programs))


def _probes(programs: Iterable[Program]) -> Iterator[Probe]:
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


#: types whose attachment uses perf_event_open(), so its result depends on that call's sysctl too
_BY_PERF = ("kprobe", "tracepoint", "uprobe", "perf_event")


def _of_program(name: str, kind: str, symbol: str) -> Iterator[Probe]:
    yield Probe(name, LOAD, lambda place: place.load(name), takes_token=True)

    def inherited(attach: Attach) -> Callable[[Place], object]:
        return lambda place: attach(place.inherited(name), place)

    def loaded(attach: Attach) -> Callable[[Place], object]:
        return lambda place: attach(place.loaded(name), place)

    for path, attach in {} if name in LOADED_ONLY else paths(kind, symbol).items():
        sysctls = _attach_sysctls(kind, path)
        yield Probe(name, f"{ATTACH} {path}", inherited(attach), sysctls)
        either = (BPF_SYSCTL, *(sysctl for sysctl in sysctls if sysctl != BPF_SYSCTL))
        yield Probe(name, f"{BOTH} {path}", loaded(attach), either, takes_token=True)


def _of_shipped(shipped: Program) -> Iterator[Probe]:
    """Yield the steps of a loader for one object, from its maps to its reads."""
    name = shipped.object
    probes_of_object = [Probe(name, "map_create", lambda place: _create_shipped(name, place), takes_token=True)]
    probes_of_object += _of_program(name, shipped.type, shipped.symbol)
    probes_of_object.append(
        Probe(name, "pin", lambda place: _pin(place.resources.loadables[name].fd, place.resources.private, place))
    )
    probes_of_object.append(Probe(name, "read", lambda place: _read_shipped(name, place)))
    if shipped.type == "tracepoint":
        probes_of_object.append(Probe(name, "read id", lambda _: perf.tracepoint_number(TRACEPOINT), ()))
    yield from (replace(probe, shipped=True) for probe in probes_of_object)


def _attach_sysctls(kind: str, path: str) -> tuple[str, ...]:
    """Return the sysctls that affect a path.

    Netlink, setsockopt, ioctl and tracefs do not use bpf(); the measured table verifies this.
    """
    bpf = (BPF_SYSCTL,) if path in {"link", "tcx", "prog_attach", "clsact"} else ()
    return (*bpf, PERF_SYSCTL) if kind in _BY_PERF else bpf


def _create_shipped(name: str, place: Place) -> None:
    for spec in place.resources.shipped_maps[name]:
        bpf_calls.create_map(spec, place.undo, place.token)


def _read_shipped(name: str, place: Place) -> None:
    """Read the program's events if it has a ring buffer, otherwise its counters."""
    ring = place.resources.maps.get(f"{name} events")
    if ring is not None:
        bpf_calls.info(ring)  # libbpf asks for the size
        bpf_calls.map_ringbuf(ring, 256 * 1024, place.undo)
    else:
        counters = next(spec for spec in place.resources.shipped_maps[name] if spec.type == "percpu_array")
        # the kernel writes a value for each CPU, each rounded up to eight bytes (bpf_percpu_array_copy())
        size = (counters.value + 7) // 8 * 8 * possible_cpus()
        steps.lookup(place.resources.maps[f"{name} counters"], replace(counters, value=size), key=0)


def _pin(fd: int, folder: Path, place: Place) -> None:
    bpf_calls.pin(fd, folder / "step", place.undo)


def _of_struct_ops() -> Iterator[Probe]:
    def create(place: Place) -> None:
        struct_ops.create_map(place.resources.struct_ops, place.undo, place.token)

    def load(place: Place) -> None:
        struct_ops.load(place.resources.struct_ops, place.undo, place.token)

    yield Probe("struct_ops", "map_create", create, takes_token=True)
    yield Probe("struct_ops", LOAD, load, takes_token=True)


def _of_maps() -> Iterator[Probe]:
    def fd(place: Place) -> int:
        return place.resources.maps["array"]

    yield Probe("array", "pin private", lambda place: _pin(fd(place), place.resources.private, place))
    yield Probe("array", "pin public", lambda place: _pin(fd(place), place.resources.public, place))
    yield Probe(
        "array", "open pinned private", lambda place: bpf_calls.open_pin(place.resources.private / "map", place.undo)
    )
    yield Probe(
        "array", "open pinned public", lambda place: bpf_calls.open_pin(place.resources.public / "map", place.undo)
    )
    yield Probe("array", "lookup", lambda place: steps.lookup(fd(place), MAPS["array"], key=0))
    yield Probe("array", "update", lambda place: bpf_calls.update(fd(place), bytes(4)))
    yield Probe(
        "ringbuf", "read", lambda place: bpf_calls.map_ringbuf(place.resources.maps["ringbuf"], _PAGE, place.undo)
    )
    yield Probe("perf_event_array", "read open", lambda place: perf.output_event(place.undo), (BPF_SYSCTL, PERF_SYSCTL))
    yield Probe("perf_event_array", "read", _read_perf, (BPF_SYSCTL, PERF_SYSCTL))


def _read_perf(place: Place) -> None:
    event = perf.output_event(place.undo)
    bpf_calls.update(place.resources.maps["perf_event_array"], event.to_bytes(4, "little"))


def _commands() -> Iterator[Probe]:
    yield Probe("bpf", "list programs", lambda _: bpf_calls.next_id("prog"))
    yield Probe("bpf", "list maps", lambda _: bpf_calls.next_id("map"))
    yield Probe("bpf", "open program by id", lambda p: bpf_calls.open_by_id("prog", p.resources.program_id, p.undo))
    yield Probe("bpf", "open map by id", lambda p: bpf_calls.open_by_id("map", p.resources.map_id, p.undo))
    yield Probe("bpf", "info of program", lambda p: bpf_calls.info(p.resources.loadables["xdp"].fd))
    yield Probe("bpf", "test run", lambda p: bpf_calls.test_run(p.resources.loadables["xdp"].fd, 64))
    yield Probe("bpf", "load BTF", lambda p: bpf_calls.load_btf(p.undo, p.token), takes_token=True)
    yield Probe("bpf", "query cgroup", lambda p: bpf_calls.attached_to(p.resources.cgroup, "cgroup_inet_ingress"))
    yield Probe("bpf", "token create", _create_token, takes_token=True)


def _create_token(place: Place) -> None:
    """Create a token from a delegating bpffs if there is one, otherwise from a bpffs that delegates nothing."""
    if place.delegating is not None:
        place.undo.callback(os.close, steps.create_token(place.delegating))
        return
    bpffs = os.open(place.resources.public, os.O_RDONLY | os.O_CLOEXEC)
    place.undo.callback(os.close, bpffs)
    place.undo.callback(os.close, steps.create_token(bpffs))
