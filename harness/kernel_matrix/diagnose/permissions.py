"""Rules about the permissions of the process and the machine: capabilities, sysctls, memlock, lockdown."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from dataclasses import replace

from kernel_matrix.diagnose import needs
from kernel_matrix.diagnose.needs import Need
from kernel_matrix.diagnose.remedy import Remedy, joined
from kernel_matrix.diagnose.situation import Cause, Diagnosis, Rule, Situation, advise, last_line

#: types that are newer than the verifier's check of CAP_BPF; empty for an unknown type
_NEWER_TYPES = frozenset({"", "syscall", "netfilter"})


def _lockdown(at: Situation) -> Diagnosis | None:
    """Detect a refusal of security_locked_down(): of kprobes, tracefs, or helpers that access other memory."""
    if at.lockdown == "none":
        return None
    line = last_line(at.log)
    writes = at.stage == "load" and "bpf_probe_write_user" in line
    reads = at.stage == "load" and "bpf_probe_read" in line
    traces = at.stage == "attach" and (at.hook, at.errno) in {("kprobe", errno.EPERM), ("tracepoint", errno.ENOENT)}
    if writes or (at.lockdown == "confidentiality" and (reads or traces)):
        done = "changes a process's memory" if writes else "could show its memory"
        return advise(
            Cause.LOCKDOWN,
            f"the kernel is locked down ({at.lockdown}): it refuses what {done}",
            "boot it with a lower lockdown=, or use fentry and raw tracepoints, and no such helper",
        )
    return None


def _insufficient(at: Situation) -> Diagnosis | None:
    """Name everything that the process lacks for the step: the kernel's errno is only that of the first check."""
    return _diagnosis(at, needs.unmet(at))


def _closed(at: Situation) -> Diagnosis | None:
    """Conclude from an otherwise unexplained EPERM that bpf() is closed, when this was not probed."""
    if at.errno != errno.EPERM or at.stage in {"map_create", "load", "token", "read"}:
        return None
    return _diagnosis(at, needs.unmet(replace(at, closes_all=True)))


def _diagnosis(at: Situation, lacking: Sequence[Need]) -> Diagnosis | None:
    if not any(at.errno in need.errnos for need in lacking):
        return None
    cure, second = needs.remedy(lacking, at), needs.alternative(lacking, at)
    if at.stage == "load" and at.target != "BTF":
        # the program has not reached the verifier yet
        cure = replace(cure, verifier=_verifier_needs(cure, at))
        second = second and replace(second, verifier=_verifier_needs(second, at))
    return Diagnosis(Cause.PERMISSION, _why(lacking, cure, at), cure, second)


def _verifier_needs(remedy: Remedy, at: Situation) -> tuple[str, ...]:
    """Return the capabilities that the verifier may require in addition to a remedy: for loops, calls and pointers."""
    return tuple(
        need.capabilities[0]
        for need in (needs.BPF, needs.PERFMON)
        if not set(need.capabilities) & set(remedy.capabilities)
        and (remedy.outside or (need.counts(at) and not need.met(at)))
    )


def _why(lacking: Sequence[Need], cure: Remedy, at: Situation) -> str:
    """Return which capabilities are missing, and each sysctl that requires them."""
    sysctls = sorted({need.sysctl for need in lacking if need.sysctl and need.sysctl in at.sysctls})
    reasons = [f"{name} is {at.sysctls[name]}" for name in sysctls]
    if any(not need.counts(at) for need in lacking):
        reasons.append("the capabilities of its user namespace do not count")
    if cure.capabilities:
        reasons.insert(0, f"{joined(cure.capabilities)} missing")
    return ", and ".join(reasons)


def _unprivileged(at: Situation) -> Diagnosis | None:
    """Detect code that bpf_check() accepts only with CAP_BPF or CAP_PERFMON.

    Without CAP_PERFMON it also follows branches of speculative execution, where no loop has an end (EINVAL).
    """
    if at.stage != "load":
        return None
    line = last_line(at.log)
    bpf, perfmon = (not need.met(at) for need in (needs.BPF, needs.PERFMON))
    if at.errno == errno.EPERM and bpf and (not line or "allowed for" in line):
        return _refused(needs.BPF, "calls no function of its own", at)
    if at.errno == errno.EACCES and perfmon and (not line or "prohibited" in line or "leak" in line):
        return _refused(needs.PERFMON, "computes nothing from pointers", at)
    loop = "back-edge" in line or "infinite loop" in line or (not line and at.kind not in _NEWER_TYPES)
    if at.errno == errno.EINVAL and loop and (bpf or perfmon):
        return _refused(needs.BPF if bpf else needs.PERFMON, "has no loop", at)
    if at.errno in {errno.E2BIG, errno.EFAULT} and perfmon and not bpf:
        # measured with a loop: EFAULT on 6.17 and 6.18, E2BIG from 7.2 on; older kernels return EINVAL
        return replace(_refused(needs.PERFMON, "has no loop, or is small", at), other=Remedy("make it smaller"))
    return None


def _helper(at: Situation) -> Diagnosis | None:
    """Detect a helper that bpf_base_func_proto() offers only with CAP_BPF or CAP_PERFMON, for any type of program."""
    line = last_line(at.log)
    if at.stage != "load" or at.errno != errno.EINVAL or not re.search("unknown func|cannot use helper", line):
        return None
    lacking = [need for need in (needs.BPF, needs.PERFMON) if not need.met(at)]
    return _refused(lacking[0], "calls no helper that shows other memory", at) if lacking else None


def _refused(need: Need, unless: str, at: Situation) -> Diagnosis:
    """Return the diagnosis for a capability that the verifier requires."""
    cure = needs.remedy([need], at)
    if need is needs.BPF and not needs.PERFMON.met(at):
        cure = replace(cure, verifier=("CAP_PERFMON",))
    why = f"{joined(cure.capabilities)} missing, without which the verifier takes only what {unless}"
    return Diagnosis(Cause.PERMISSION, why, cure)


def _memlock(at: Situation) -> Diagnosis | None:
    """Detect a memlock limit: bpf_map_charge_init() and __bpf_prog_charge() return EPERM over it for any process."""
    if at.errno == errno.EPERM and at.stage in {"map_create", "load"} and at.charges_memlock and at.memlock is not None:
        kilobytes = at.memlock // 1024
        return advise(
            Cause.MEMLOCK,
            f"this kernel charges maps and programs to RLIMIT_MEMLOCK, which is {kilobytes} KiB",
            "raise it: LimitMEMLOCK=infinity in the service, ulimit -l unlimited, or CAP_SYS_RESOURCE for the loader",
        )
    return None


RULES: tuple[Rule, ...] = (_lockdown, _insufficient, _closed, _unprivileged, _helper, _memlock)
