"""What the kernel says of loaded programs and their maps, by its own account."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any


def _bpftool(*arguments: str) -> str:
    return subprocess.run(["/usr/sbin/bpftool", *arguments], capture_output=True, text=True, check=True).stdout


def _shown(kind: str) -> list[dict[str, Any]]:
    return list(json.loads(_bpftool("-j", kind, "show")))


def skipped(programs: Collection[str]) -> dict[str, int]:
    """Return how often the loaded programs of these names did not run; 0 is left out.

    A program does not run where another runs on the same processor (kernel/trace/bpf_trace.c, trace_call_bpf()).
    Kernels account for it since dd8657894c11 ("bpf: Count missed stats in trace_call_bpf", 6.7), and say nothing
    before. A name is cut to 15 characters (BPF_OBJ_NAME_LEN).
    """
    names = {name[:15]: name for name in programs}
    counts = {one.get("name"): one.get("recursion_misses", 0) for one in _shown("prog")}
    return {names[name]: count for name, count in counts.items() if name in names and count}


@dataclass(frozen=True, slots=True)
class Table:
    """A loaded map."""

    type: str
    max_entries: int
    key: int
    value: int


def maps_of(program: str) -> dict[str, Table]:
    """Return the maps that the newest loaded program of that name uses, by their names."""
    newest = max((one for one in _shown("prog") if one.get("name") == program[:15]), key=lambda one: int(one["id"]))
    return {
        one["name"]: Table(one["type"], one["max_entries"], one["bytes_key"], one["bytes_value"])
        for one in _shown("map")
        if one["id"] in newest["map_ids"]
    }


def atomic_additions(program: str) -> int:
    """Return how many additions of the newest loaded program of that name are atomic."""
    newest = max(int(one["id"]) for one in _shown("prog") if one.get("name") == program[:15])
    return sum("lock *(u64 *)" in line for line in _bpftool("prog", "dump", "xlated", "id", str(newest)).splitlines())
