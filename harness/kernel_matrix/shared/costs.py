"""What a program costs the verifier, and what became of it: in the verifier's own numbers. Pure, on both sides."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: the name under which tests hand costs to the host: ``results/latest/costs/<kernel>.json``
COSTS = "costs"

#: print_verification_stats() of the kernel's kernel/bpf/verifier.c
_PROCESSED = re.compile(
    r"processed (?P<instructions>\d+) insns \(limit \d+\) max_states_per_insn \d+"
    r" total_states (?P<states>\d+) peak_states (?P<peak>\d+)"
)
#: bytes of stack: of the main function and of each function of its own, or, in newer kernels, of the deepest call
_STACK = re.compile(r"^stack depth (?:max )?(?P<depths>[\d+]+)", re.MULTILINE)
_TIME = re.compile(r"^verification time (?P<microseconds>\d+) usec", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the verifier says of a program when it is asked for statistics (BPF_LOG_STATS)."""

    #: instructions processed, each as often as it was
    instructions: int
    #: states that were kept, and how many of them at once
    states: int
    peak_states: int
    #: bytes of stack, those of all functions together or of the deepest call: kernels differ in what they say
    stack: int
    #: of the verification, in seconds
    seconds: float


@dataclass(frozen=True, slots=True)
class Cost:
    """One program on one kernel."""

    #: instructions processed, each as often as it was
    instructions: int
    #: states that were kept, and how many of them at once
    states: int
    peak_states: int
    #: bytes of stack, those of all functions together or of the deepest call: kernels differ in what they say
    stack: int
    #: bytes of the program as the kernel keeps it, and as machine code
    translated: int
    jited: int
    #: how many times longer its verification takes than that of a fixed program in the same guest
    load: float


#: what may not grow: exact figures of a kernel; the load's ratio is measured, and only shown
COMPARED = ("instructions", "states", "peak_states", "stack", "translated", "jited")


def statistics(log: str) -> Statistics:
    """Read the verifier's statistics; raises ValueError when the log has none."""
    processed, stack, time = _PROCESSED.search(log), _STACK.search(log), _TIME.search(log)
    if processed is None or stack is None or time is None:
        raise ValueError(f"no statistics of the verifier: {log[-200:]!r}")
    return Statistics(
        int(processed["instructions"]),
        int(processed["states"]),
        int(processed["peak"]),
        sum(int(depth) for depth in stack["depths"].split("+")),
        int(time["microseconds"]) / 1e6,
    )
