"""Diagnose a refused step from the state of the process and the machine: one cause and one remedy. Pure.

The rules are tried in order and the first that applies decides. Explicit messages of the kernel come before
conclusions from an errno and the state. When no rule applies, the cause is "not known".
Used on both sides; `kernel_matrix.guest.bpf.diagnosis.machine` creates the `Situation` on a real machine.
"""

from __future__ import annotations

import errno

from kernel_matrix.diagnose import attaching, loading, objects, permissions
from kernel_matrix.diagnose.remedy import Remedy
from kernel_matrix.diagnose.situation import Cause, Diagnosis, Situation, advise, last_line, libbpf_line

__all__ = ["Cause", "Diagnosis", "Remedy", "Situation", "diagnose", "last_line"]

#: all rules in the order in which they are tried
RULES = (
    *objects.EXPLICIT,
    *loading.EXPLICIT,
    *permissions.RULES,
    *objects.CONCLUDED,
    *loading.CONCLUDED,
    *attaching.RULES,
)


def diagnose(situation: Situation) -> Diagnosis:
    """Return the cause and the remedy; the cause is UNKNOWN when no rule applies."""
    for rule in RULES:
        if diagnosis := rule(situation):
            return diagnosis
    if line := libbpf_line(situation.log):
        return advise(
            Cause.UNKNOWN, f"libbpf says: {line}", "look the message up in libbpf.c, or in the log of a newer libbpf"
        )
    name = errno.errorcode.get(situation.errno, str(situation.errno)) if situation.errno else "no error"
    return advise(
        Cause.UNKNOWN,
        f"{situation.stage} answered {name}, which nothing that is known of this machine explains",
        f"read the last lines of the log: {last_line(situation.log) or 'there is none'}",
    )
