"""Rules about who asks and what the machine allows: capabilities, sysctls, memlock, lockdown."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace

from kernel_matrix.diagnose import needs
from kernel_matrix.diagnose.needs import Need
from kernel_matrix.diagnose.remedy import Remedy, joined
from kernel_matrix.diagnose.situation import Cause, Diagnosis, Rule, Situation, advise, last_line

#: since when CAP_BPF is what the verifier asks for it is older than these
_NEWER_TYPES = frozenset({"", "syscall", "netfilter"})


def _lockdown(at: Situation) -> Diagnosis | None:
    """Find a reason of security_locked_down(): no kprobes, nothing in tracefs, no helper for foreign memory."""
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


def _lacking(at: Situation) -> Diagnosis | None:
    """Name all that the step takes and the asker lacks: the kernel only ever says which errno the first one has."""
    return _asked(at, needs.unmet(at))


def _closed(at: Situation) -> Diagnosis | None:
    """Conclude from an EPERM that nothing else explains that bpf() is closed, where nobody has found out."""
    if at.errno != errno.EPERM or at.stage in {"map_create", "load", "token", "read"}:
        return None
    return _asked(at, needs.unmet(replace(at, closes_all=True)))


def _asked(at: Situation, lacking: Sequence[Need]) -> Diagnosis | None:
    if not any(at.errno in need.errnos for need in lacking):
        return None
    cure, other = needs.remedy(lacking, at), needs.alternative(lacking, at)
    if at.stage == "load" and at.target != "BTF":
        # it has not come to the verifier yet
        cure = replace(cure, verifier=_asks(cure, at))
        other = other and replace(other, verifier=_asks(other, at))
    return Diagnosis(Cause.PERMISSION, _why(lacking, cure, at), cure, other)


def _asks(remedy: Remedy, at: Situation) -> tuple[str, ...]:
    """Return what the verifier may ask of whoever has what a remedy gives: it knows loops, calls and pointers."""
    return tuple(
        need.capabilities[0]
        for need in (needs.BPF, needs.PERFMON)
        if not set(need.capabilities) & set(remedy.capabilities)
        and (remedy.outside or (need.counts(at) and not need.met(at)))
    )


def _why(lacking: Sequence[Need], cure: Remedy, at: Situation) -> str:
    """Say which capabilities are missing, and each sysctl that asks for them."""
    sysctls = sorted({need.sysctl for need in lacking if need.sysctl and need.sysctl in at.sysctls})
    reasons = [f"{name} is {at.sysctls[name]}" for name in sysctls]
    if any(not need.counts(at) for need in lacking):
        reasons.append("the capabilities of its user namespace do not count")
    if cure.capabilities:
        reasons.insert(0, f"{joined(cure.capabilities)} missing")
    return ", and ".join(reasons)


def _unprivileged(at: Situation) -> Diagnosis | None:
    """Say what bpf_check() takes only of whoever has CAP_BPF or CAP_PERFMON.

    Without CAP_PERFMON it also follows branches that a processor only guesses at, where no loop has an end (EINVAL).
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
        # as measured of a loop: EFAULT on 6.17 and 6.18, E2BIG from 7.2 on, where older kernels answer EINVAL
        return replace(_refused(needs.PERFMON, "has no loop, or is small", at), other=Remedy("make it smaller"))
    return None


def _refused(need: Need, unless: str, at: Situation) -> Diagnosis:
    """Say which capability the verifier asks for."""
    cure = needs.remedy([need], at)
    if need is needs.BPF and not needs.PERFMON.met(at):
        cure = replace(cure, verifier=("CAP_PERFMON",))
    why = f"{joined(cure.capabilities)} missing, without which the verifier takes only what {unless}"
    return Diagnosis(Cause.PERMISSION, why, cure)


def _memlock(at: Situation) -> Diagnosis | None:
    """bpf_map_charge_init() and __bpf_prog_charge(): EPERM over the limit, whatever the capabilities."""
    if at.errno == errno.EPERM and at.stage in {"map_create", "load"} and at.charges_memlock and at.memlock is not None:
        kilobytes = at.memlock // 1024
        return advise(
            Cause.MEMLOCK,
            f"this kernel charges maps and programs to RLIMIT_MEMLOCK, which is {kilobytes} KiB",
            "raise it: LimitMEMLOCK=infinity in the service, ulimit -l unlimited, or CAP_SYS_RESOURCE for the loader",
        )
    return None


RULES: tuple[Rule, ...] = (_lockdown, _lacking, _closed, _unprivileged, _memlock)
