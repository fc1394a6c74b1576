"""Rules about who asks and what the machine allows: capabilities, sysctls, memlock, lockdown."""

from __future__ import annotations

import errno

from harness.diagnose.situation import (
    UNPRIVILEGED_TYPES,
    Cause,
    Diagnosis,
    Rule,
    Situation,
    last_line,
    needed,
)


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
        return Diagnosis(
            Cause.LOCKDOWN,
            f"the kernel is locked down ({at.lockdown}): it refuses what {done}",
            "boot it with a lower lockdown=, or use fentry and raw tracepoints, and no such helper",
        )
    return None


def _missing_at_load(at: Situation) -> Diagnosis | None:
    """bpf_prog_load() and map_create(): EPERM for each capability that is missing."""
    if at.errno != errno.EPERM or at.stage not in {"map_create", "load"}:
        return None
    wanted = needed(at.kind) if at.stage == "load" else ("CAP_BPF",)
    lacking = [name for name in wanted if not at.has(name, "CAP_SYS_ADMIN")]
    if not lacking:
        return None
    remedy = f"give it {' and '.join(lacking)}"
    if at.kind in UNPRIVILEGED_TYPES and at.sysctls.get("kernel.unprivileged_bpf_disabled", 0):
        remedy += ", or set kernel.unprivileged_bpf_disabled to 0"
    return _permission(lacking, remedy)


def _memlock(at: Situation) -> Diagnosis | None:
    """bpf_map_charge_init() and __bpf_prog_charge(): EPERM over the limit, whatever the capabilities."""
    if at.errno == errno.EPERM and at.stage in {"map_create", "load"} and at.charges_memlock and at.memlock is not None:
        kilobytes = at.memlock // 1024
        return Diagnosis(
            Cause.MEMLOCK,
            f"this kernel charges maps and programs to RLIMIT_MEMLOCK, which is {kilobytes} KiB",
            "raise it: LimitMEMLOCK=infinity in the service, ulimit -l unlimited, or CAP_SYS_RESOURCE for the loader",
        )
    return None


def _addresses(at: Situation) -> Diagnosis | None:
    """Without env->allow_ptr_leaks, which is CAP_PERFMON, the verifier answers EACCES."""
    if at.errno == errno.EACCES and at.stage == "load" and not at.has("CAP_PERFMON", "CAP_SYS_ADMIN"):
        line = last_line(at.log)
        if not line or "prohibited" in line or "leak" in line:
            return _permission(["CAP_PERFMON"], "give it CAP_PERFMON, or compute nothing from pointers")
    return None


def _perf(at: Situation) -> Diagnosis | None:
    """perf_event_open(): EACCES."""
    if at.errno != errno.EACCES or at.stage != "attach" or at.has("CAP_SYS_ADMIN"):
        return None
    paranoid = at.sysctls.get("kernel.perf_event_paranoid", 2)
    if at.hook == "tracepoint" and at.uid and not at.has("CAP_DAC_READ_SEARCH"):
        return _permission(["CAP_DAC_READ_SEARCH"], "give it CAP_DAC_READ_SEARCH: tracefs is root's alone")
    if not at.has("CAP_PERFMON"):
        more = " (and, at kernel.perf_event_paranoid above 2, CAP_SYS_ADMIN)" if paranoid > 2 else ""
        return _permission(["CAP_PERFMON"], f"give it CAP_PERFMON{more}")
    if paranoid > 2:
        return Diagnosis(
            Cause.PERMISSION,
            f"kernel.perf_event_paranoid is {paranoid}, which leaves perf_event_open() to CAP_SYS_ADMIN",
            "set kernel.perf_event_paranoid to 2, or give it CAP_SYS_ADMIN",
        )
    return None


def _net_admin(at: Situation) -> Diagnosis | None:
    if at.errno == errno.EPERM and at.stage in {"attach", "detach"} and at.hook == "XDP":
        if not at.has("CAP_NET_ADMIN"):
            return _permission(["CAP_NET_ADMIN"], "give it CAP_NET_ADMIN (CAP_SYS_ADMIN does not stand for it)")
    elif at.errno == errno.EPERM and at.stage == "attach" and not at.has("CAP_BPF", "CAP_SYS_ADMIN"):
        return _permission(["CAP_BPF"], "give it CAP_BPF")
    return None


def _permission(lacking: list[str], remedy: str) -> Diagnosis:
    return Diagnosis(Cause.PERMISSION, f"{' and '.join(lacking)} missing", remedy)


RULES: tuple[Rule, ...] = (_lockdown, _missing_at_load, _memlock, _addresses, _perf, _net_admin)
