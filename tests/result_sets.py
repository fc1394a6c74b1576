"""Example result sets, as large as the full matrix: all green, or with a failure of every kind."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from kernel_matrix.results.changes import Change, Kind
from kernel_matrix.results.document import VERSION, Column, Document
from kernel_matrix.shared import wire
from kernel_matrix.shared.bpf.costs import Cost
from kernel_matrix.shared.outcomes.cells import Cell, Outcome

KERNELS = (
    "5.10", "6.1", "6.12", "7.3", "6.16", "6.17", "6.18", "6.19", "7.0", "7.1", "7.2", "6.12-rt", "6.12-cloud",
)  # fmt: skip
VARIANT = "+lockdown_integrity"
#: file -> the tests' names, cycled with parameters
FILES = {
    "suites/attach/test_pairings.py": ("test_a_program_attaches_where_its_type_belongs",),
    "suites/environment/test_mounts.py": ("test_without_bpffs_a_pin_is_refused", "test_without_tracefs_there_is_no_id"),
    "suites/execve/test_events.py": ("test_an_exec_is_one_event", "test_a_failed_exec_is_none", "test_args_are_whole"),
    "suites/features/test_features.py": ("test_the_kernel_has_exactly_the_features_of_the_manifest",),
    "suites/permissions/test_capabilities.py": ("test_without_cap_bpf_a_map_is_refused", "test_a_token_gives_it_back"),
    "suites/sockets/test_connect.py": ("test_a_connect_is_counted", "test_a_refused_connect_has_its_errno"),
    "suites/variants/test_lockdown.py": ("test_integrity_leaves_reading_allowed",),
    "suites/verifier/test_limits.py": ("test_one_instruction_too_many_is_refused",),
    "suites/xdp/test_frames.py": ("test_a_frame_counts_once", "test_vlan_frame_is_counted_by_its_wire_length"),
    "suites/xdp/test_modes.py": ("test_every_mode_counts_the_same",),
}
PARAMETERS = ("native", "generic", "lldp", "ipv6-fragment", "vlan-7", "gre", "qinq", "1500", "64", "perf", "ringbuf")
PROGRAMS = {"xdp_packet_counter": 39, "trace_execve": 149, "trace_connect_exit": 639, "trace_accept_exit": 702}

FAILURE = """\
suites/xdp/test_frames.py:61: in test_vlan_frame_is_counted_by_its_wire_length
    assert xdp.counters(500) == Counters(packets=500, bytes=500 * len(frame), vlan=500)
E   AssertionError: assert Counters(packets=500, bytes=31000, vlan=0) == Counters(packets=500, bytes=33000, vlan=500)
E     Differing attributes: ['bytes', 'vlan']
E     bytes: 31000 != 33000: the driver took the tag before the program saw the frame"""
LOG = """\
[   12.402117] veth0: renamed from tmp41
[   12.418842] veth0: entered promiscuous mode
[   12.430201] 8021q: adding VLAN 0 to HW filter on device veth0"""
VERIFIER = """\
libbpf: prog 'trace_connect_exit': BPF program load failed: Permission denied
0: R1=ctx() R10=fp0
; struct sock *sk = ctx->sk; @ tracepoint_network.bpf.c:88
0: (79) r6 = *(u64 *)(r1 +16)
invalid bpf_context access off=16 size=8
processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0"""
DIAGNOSIS = """\
The program reads a field of its context that this kernel does not have at offset 16.
Remedy: read it through BPF CO-RE (bpf_core_field_exists), or attach to the raw tracepoint."""
PANIC = """\
BUG: kernel NULL pointer dereference, address: 0000000000000018
Oops: 0000 [#1] PREEMPT SMP NOPTI
RIP: 0010:bpf_prog_6deef7357e7b4530+0x5d/0x9c
Kernel panic - not syncing: Fatal exception in interrupt"""

NO_FIELD = (
    "kernel_matrix.guest.bpf.loaders.LoadError: trace_connect_exit: EACCES: invalid bpf_context access off=16 size=8"
)
#: a test, its parameter, the kernels on which it is red, and its cell
BROKEN = (
    ("test_vlan", "vlan-7", {"7.1", "7.2", "7.3"}, Cell("", "", Outcome.FAIL, detail=FAILURE, log=LOG)),
    (
        *("test_a_refused_connect", "native", {"5.10", "6.1"}),
        Cell("", "", Outcome.ERROR, detail=NO_FIELD, verifier=VERIFIER, diagnosis=DIAGNOSIS),
    ),
    ("test_every_mode", "gre", {"6.12-cloud"}, Cell("", "", Outcome.CRASH, detail=PANIC, log=PANIC)),
    ("test_every_mode", "lldp", {"6.12-cloud"}, Cell("", "", Outcome.LOST, detail="the guest said nothing for 60 s")),
    ("test_every_mode", "1500", {"6.12-cloud"}, Cell("", "", Outcome.NOTRUN, detail="no report came")),
    ("test_args", "64", {"7.3"}, Cell("", "", Outcome.XPASS, detail="[XPASS(strict)] truncated before 6.14")),
)


def document(
    cells: Iterable[Cell],
    changes: Iterable[Change] = (),
    columns: Sequence[Column] | None = None,
    exit_status: int | None = None,
) -> Document:
    """Return a result set of these cells; the default columns are those of the cells."""
    cells = tuple(cells)
    if columns is None:
        columns = [Column(kernel, "", "", "", {}) for kernel in dict.fromkeys(cell.kernel for cell in cells)]
    if exit_status is None:
        exit_status = 0 if cells and all(cell.outcome.green for cell in cells) else 1
    return Document(
        version=VERSION,
        started="2026-11-24T15:09:43+00:00",
        seconds=412.7,
        exit_status=exit_status,
        accelerator="kvm: a probe guest booted with it in 1.1 s",
        guests=4,
        arguments=("--kernel", "full", "suites"),
        whole=True,
        shard="",
        notes=("6.17: the mirror no longer has the locked 6.17.4-1; 6.17.8-1 was used",) if cells else (),
        columns=tuple(columns),
        cells=cells,
        changes=tuple(changes),
    )


def full(kernels: int = 13, tests: int = 600, *, variants: bool = True, red: bool = True) -> Document:
    """Return a run of the full matrix: with failures of every kind and changes, or all green and unchanged."""
    chance = random.Random(7)
    names = KERNELS[:kernels]
    columns = [_column(kernel, red=red) for kernel in names]
    if variants:
        columns += [_column(kernel + VARIANT, red=False, costs=False) for kernel in names]
    cells = []
    for column in columns:
        for number, test in enumerate(_tests(tests)):
            if ("/variants/" in test) == (VARIANT in column.kernel):
                cells.append(_cell(column, test, number, chance, red=red))
    return document(cells, _changes(cells) if red else (), columns)


def _tests(count: int) -> list[str]:
    """Return test names, spread over the files, sorted."""
    files = list(FILES.items())
    tests = []
    for number in range(count):
        file, functions = files[number % len(files)]
        index = number // len(files)
        parameter = PARAMETERS[index % len(PARAMETERS)]
        round_ = index // (len(PARAMETERS) * len(functions))
        name = functions[index // len(PARAMETERS) % len(functions)]
        tests.append(f"{file}::{name}[{parameter}{f'-{round_}' if round_ else ''}]")
    return sorted(tests)


def _column(kernel: str, *, red: bool, costs: bool = True) -> Column:
    chance = random.Random(kernel)
    base = kernel.partition("+")[0]
    version, _, flavour = base.partition("-")
    release = f"{version}.{chance.randrange(2, 40)}-{flavour or 'amd64'}"
    costs_by_program = {}
    for program, instructions in PROGRAMS.items() if costs else ():
        count = instructions if KERNELS.index(base) < 4 else instructions - instructions // 9
        count += 210 if red and (base, program) == ("7.3", "trace_accept_exit") else 0
        costs_by_program[program] = Cost(
            count, count // 11, count // 12, 56, count * 3, count * 2, chance.uniform(0.5, 2)
        )
    return Column(
        kernel, release, f"{version}.{chance.randrange(40, 99)}-1", f"{chance.getrandbits(48):012x}", costs_by_program
    )


def _cell(column: Column, test: str, number: int, chance: random.Random, *, red: bool) -> Cell:
    seconds = round(chance.expovariate(4), 3)
    kernel = column.kernel
    cell = Cell(kernel, test, Outcome.PASS, column.release, seconds)
    if kernel in {"5.10", "6.1"} and number % 9 == 4:
        cell = Cell(kernel, test, Outcome.SKIP, column.release, 0.0, "needs ringbuf, which 5.10 has not")
    elif number % 13 == 2:
        cell = Cell(kernel, test, Outcome.REFUSED, column.release, seconds)
    elif kernel == "6.12-rt" and number % 97 == 5:
        cell = Cell(kernel, test, Outcome.XFAIL, column.release, seconds, "commit 3f0c1e5f59c6: fixed in 6.14")
    return (_red(cell) or cell) if red else cell


def _red(cell: Cell) -> Cell | None:
    """Return the cell as it is when red, None when it stays green."""
    for name, parameter, kernels, broken in BROKEN:
        if name in cell.test and f"[{parameter}]" in cell.test and cell.kernel in kernels:
            return replace(broken, kernel=cell.kernel, test=cell.test, release=cell.release, duration=cell.duration)
    return None


def _changes(cells: Sequence[Cell]) -> list[Change]:
    red = [cell for cell in cells if not cell.outcome.green]
    changes = [
        Change(Kind.REGRESSION, cell.kernel, cell.test, "pass", str(cell.outcome), gates=True)
        for cell in red
        if cell.outcome in {Outcome.FAIL, Outcome.CRASH}
    ]
    cost = ("instructions 702", "instructions 912")
    changes.append(Change(Kind.COSTLIER, "7.3", "trace_accept_exit", *cost, "the threshold is 10 %", gates=True))
    changes.append(Change(Kind.DRIFTED, "6.17", "", "6.17.4-1", "6.17.8-1"))
    changes += [
        Change(Kind.FIXED, cell.kernel, cell.test, "fail", "pass") for cell in cells if cell.test == cells[7].test
    ]
    changes.append(Change(Kind.GONE, "6.1", "suites/xdp/test_old.py::test_that_is_no_more", "pass", ""))
    return changes


def read_cells(path: Path) -> tuple[Cell, ...]:
    """Read a results.jsonl."""
    return tuple(wire.decode(line, Cell) for line in path.read_bytes().splitlines())
