"""The cost of a program for the verifier, and its sizes, in the kernel's own numbers. Pure, for host and guest."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: the name under which tests send costs to the host: ``results/latest/costs/<kernel>.json``
COSTS = "costs"

#: print_verification_stats() of the kernel's kernel/bpf/verifier.c
_PROCESSED = re.compile(
    r"processed (?P<instructions>\d+) insns \(limit \d+\) max_states_per_insn \d+"
    r" total_states (?P<states>\d+) peak_states (?P<peak>\d+)"
)
#: bytes of stack: of the main function and of each of its functions, or, on newer kernels, of the deepest call
_STACK = re.compile(r"^stack depth (?:max )?(?P<depths>[\d+]+)", re.MULTILINE)
_TIME = re.compile(r"^verification time (?P<microseconds>\d+) usec", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Statistics:
    """The verifier's statistics of a program (BPF_LOG_STATS)."""

    #: instructions processed; repeated visits count
    instructions: int
    #: states that were kept, and the most at one time
    states: int
    peak_states: int
    #: bytes of stack, of all functions together or of the deepest call: kernels differ in what they report
    stack: int
    #: duration of the verification
    seconds: float


@dataclass(frozen=True, slots=True)
class Cost:
    """One program on one kernel."""

    #: instructions processed; repeated visits count
    instructions: int
    #: states that were kept, and the most at one time
    states: int
    peak_states: int
    #: bytes of stack, of all functions together or of the deepest call: kernels differ in what they report
    stack: int
    #: bytes of the program as translated by the kernel, and as machine code
    translated: int
    jited: int
    #: time of its verification divided by that of a fixed program in the same guest
    load: float


#: the values that may not grow, which are exact for a kernel; the load's ratio is measured, and only shown
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
