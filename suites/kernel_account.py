"""What the kernel says of loaded programs and their maps, by its own account, and what is in an object."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel_matrix.guest.bpf import costing
from kernel_matrix.guest.bpf.leaks import program_ids
from kernel_matrix.guest.bpf.library import libbpf
from kernel_matrix.guest.bpf.steps import iterate, open_object


def _bpftool(*arguments: str) -> str:
    return subprocess.run(["/usr/sbin/bpftool", *arguments], capture_output=True, text=True, check=True).stdout


def shown(kind: str) -> list[dict[str, Any]]:
    """Return the kernel's programs (``prog``), maps, links, or programs on perf events (``perf``)."""
    return list(json.loads(_bpftool("-j", kind, "show") or "[]"))


def skipped(programs: Collection[str]) -> dict[str, int]:
    """Return how often the loaded programs of these names did not run; 0 is left out.

    A program does not run where another runs on the same processor (kernel/trace/bpf_trace.c, trace_call_bpf()), and
    a kprobe is not hit inside of another (kernel/kprobes.c, kprobes_inc_nmissed_count()). Since 7.2 a program on a
    tracepoint of a system call does not run where it is preempted itself (trace_call_bpf_faultable(); 57918341dd19,
    "bpf: Add sleepable support for classic tracepoint programs").

    Kernels account for the first two since 6.7 (dd8657894c11, "bpf: Count missed stats in trace_call_bpf"; and
    3acf8ace6823, "bpf: Add missed value to kprobe perf link info"), for the second where there is a link, and say
    nothing otherwise.
    """
    names = {_cut(name): name for name in programs}
    missed = Counter({link["prog_id"]: link.get("missed", 0) for link in shown("link") if "prog_id" in link})
    counts: Counter[str] = Counter()
    for one in shown("prog"):
        if name := names.get(_cut(one.get("name", ""))):
            counts[name] += one.get("recursion_misses", 0) + missed[one["id"]]
    return {name: count for name, count in counts.items() if count}


def runs_skipped() -> int:
    """Return how often the kernel has not run a program that is loaded now: `skipped` of all, without bpftool.

    This reads no map: a program is skipped, too, while a task is preempted in bpf(2) on a map (7.1 and before).
    """
    total = 0
    for number in program_ids():
        fd = libbpf().bpf_prog_get_fd_by_id(number)
        if fd == -errno.ENOENT:
            # unloaded meanwhile
            continue
        assert fd >= 0, os.strerror(-fd)
        try:
            total += costing.runs_skipped(fd)
        finally:
            os.close(fd)
    return total


@dataclass(frozen=True, slots=True)
class Table:
    """A loaded map."""

    type: str
    max_entries: int
    key: int
    value: int


def _cut(name: str) -> str:
    """Return a name as the kernel keeps it (BPF_OBJ_NAME_LEN); bpftool takes longer ones from BTF, if it is there."""
    return name[:15]


def _newest(program: str) -> dict[str, Any]:
    """Return the last loaded program of that name."""
    loaded = shown("prog")
    named = [one for one in loaded if one.get("name") == program]
    alike = named or [one for one in loaded if _cut(one.get("name", "")) == _cut(program)]
    return max(alike, key=lambda one: int(one["id"]))


def maps_of(program: str) -> dict[str, Table]:
    """Return the maps that the newest loaded program of that name uses, by their names."""
    newest = _newest(program)
    return {
        one["name"]: Table(one["type"], one["max_entries"], one["bytes_key"], one["bytes_value"])
        for one in shown("map")
        if one["id"] in newest["map_ids"]
    }


#: an instruction as bpftool shows it: a load of 32 or 64 bits, an addition of anything, a store
_LOAD = re.compile(r"(?P<to>[rw]\d+) = \*\(u(?:32|64) \*\)\((?P<at>r\d+ [+-]\d+)\)")
_STORE = re.compile(r"\*\(u(?:32|64) \*\)\((?P<at>r\d+ [+-]\d+)\) = (?P<of>[rw]\d+)")


def _instructions(program: str) -> list[str]:
    """Return the instructions of the newest loaded program of that name, as the verifier has left them."""
    dump = _bpftool("prog", "dump", "xlated", "id", str(_newest(program)["id"]))
    return [line.strip() for line in dump.splitlines() if re.match(r"\s*\d+: ", line)]


def flags_of_updates(program: str) -> list[int]:
    """Return the flags of each call that updates a hash map: the constant last put into r4, the fourth argument."""
    flags, last = [], -1
    for line in _instructions(program):
        if constant := re.search(r"r4 = (\d+)$", line):
            last = int(constant[1])
        elif re.search(r"call (?:htab|bpf)_map_update_elem", line):
            flags.append(last)
    return flags


def plain_additions(program: str) -> list[str]:
    """Return where the newest loaded program of that name adds to memory by a load, an addition and a store.

    Another processor may store between them; what is added atomically is one instruction, ``lock``.
    """
    lines, sites = _instructions(program), []
    for load, addition, store in zip(lines, lines[1:], lines[2:], strict=False):
        read, written = _LOAD.search(load), _STORE.search(store)
        if read and written and read["at"] == written["at"] and f"{read['to']} += " in addition:
            sites.append(store)
    return sites


def helpers_called(path: Path) -> set[int]:
    """Return the numbers of the kernel's helpers that an object's programs call (linux/bpf.h, enum bpf_func_id)."""
    lib, helpers = libbpf(), set()
    with open_object(path) as obj:
        for program in iterate("bpf_object__next_program", obj):
            code = ctypes.string_at(lib.bpf_program__insns(program), 8 * lib.bpf_program__insn_cnt(program))
            for start in range(0, len(code), 8):
                # struct bpf_insn: BPF_JMP | BPF_CALL, and source 0 where a helper is called
                if code[start] == 0x85 and code[start + 1] >> 4 == 0:
                    helpers.add(int.from_bytes(code[start + 4 : start + 8], "little"))
    return helpers


#: the helpers that read a clock: CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_COARSE, CLOCK_TAI
_CLOCKS = {5: "monotonic", 125: "boottime", 160: "coarse", 208: "tai"}


def clocks_read(path: Path) -> set[str]:
    """Return the clocks that an object's programs read.

    No guest has been suspended, so CLOCK_BOOTTIME shows the same time as CLOCK_MONOTONIC in all of them.
    """
    return {_CLOCKS[number] for number in helpers_called(path) if number in _CLOCKS}
