"""What the kernel says of programs that it skipped: neither they nor their readers can know."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection


def skipped(programs: Collection[str]) -> dict[str, int]:
    """Return how often the loaded programs of these names did not run, by the kernel's own account; 0 is left out.

    A program does not run where another runs on the same processor (kernel/trace/bpf_trace.c, trace_call_bpf()).
    Kernels account for it since dd8657894c11 ("bpf: Count missed stats in trace_call_bpf", 6.7), and say nothing
    before. A name is cut to 15 characters (BPF_OBJ_NAME_LEN).
    """
    done = subprocess.run(["/usr/sbin/bpftool", "-j", "prog", "show"], capture_output=True, text=True, check=True)
    names = {name[:15]: name for name in programs}
    counts = {one.get("name"): one.get("recursion_misses", 0) for one in json.loads(done.stdout)}
    return {names[name]: count for name, count in counts.items() if name in names and count}
