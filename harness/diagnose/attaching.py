"""Rules about where a program goes: functions, tracepoints, interfaces, pins, hooks of another type, inactive LSM."""

from __future__ import annotations

import errno

from harness.diagnose.situation import ENOTSUPP, Cause, Diagnosis, Rule, Situation, symbol


def _kprobe(at: Situation) -> Diagnosis | None:
    if at.stage != "attach" or at.hook != "kprobe":
        return None
    if at.errno == errno.ENOENT and (at.target in at.symbols or at.config.get("CONFIG_KPROBES") == "n"):
        return Diagnosis(
            Cause.NOT_SUPPORTED, "the kernel has no kprobes (CONFIG_KPROBES)", "use fentry, or a kernel that has them"
        )
    if at.errno == errno.ENOENT:
        return symbol(at, at.target)
    if at.errno == errno.EINVAL and at.kind in {"", "kprobe"}:
        return Diagnosis(
            Cause.ATTACH_TYPE,
            f"{at.target} may not be probed: it is on the blacklist of kprobes",
            "attach to a function that calls it",
        )
    return None


def _tracepoint(at: Situation) -> Diagnosis | None:
    if at.stage != "attach" or at.hook != "tracepoint" or at.errno != errno.ENOENT:
        return None
    if not at.mounted("tracefs"):
        return Diagnosis(Cause.NOT_MOUNTED, "tracefs is not mounted", "mount -t tracefs tracefs /sys/kernel/tracing")
    return Diagnosis(
        Cause.SYMBOL, f"there is no tracepoint {at.target}", "look it up in /sys/kernel/tracing/available_events"
    )


def _pin(at: Situation) -> Diagnosis | None:
    if at.stage != "pin":
        return None
    if at.errno == errno.EEXIST:
        return Diagnosis(Cause.PIN, f"{at.target} is there already", "delete it, or pin under another name")
    if not at.mounted("bpf"):
        return Diagnosis(Cause.NOT_MOUNTED, "bpffs is not mounted", "mount -t bpf bpf /sys/fs/bpf")
    if at.errno in {errno.EINVAL, errno.EPERM}:
        return Diagnosis(
            Cause.PIN, f"{at.target} is not on bpffs", "pin below a mount of type bpf, such as /sys/fs/bpf"
        )
    return None


#: XDP's errnos: net/core/dev.c, dev_xdp_attach() and dev_xdp_install(), and drivers
_XDP = {
    errno.ENODEV: ("there is no such interface", "name one that exists, in the right network namespace"),
    errno.EBUSY: ("another program or link is on the interface", "detach it, or replace it"),
    errno.EEXIST: ("a program is on the interface in another mode", "detach that one first"),
    errno.EOPNOTSUPP: ("the driver has no such mode", "use the generic mode"),
    errno.ERANGE: ("the MTU is too large for native mode", "lower it, use frags (xdp.frags), or the generic mode"),
}


def _interface(at: Situation) -> Diagnosis | None:
    if at.stage == "attach" and at.hook == "XDP" and at.errno in _XDP and at.kind in {"", "xdp"}:
        return Diagnosis(Cause.INTERFACE, *_XDP[at.errno])
    return None


#: hook -> the program types that it takes
_TAKES = {"kprobe": {"kprobe"}, "tracepoint": {"tracepoint"}, "XDP": {"xdp"}, "tcx": {"sched_cls", "sched_act"}}


def _attach_type(at: Situation) -> Diagnosis | None:
    if at.stage != "attach" or at.errno not in {errno.EINVAL, errno.EOPNOTSUPP, ENOTSUPP}:
        return None
    if at.hook in _TAKES and at.kind and at.kind not in _TAKES[at.hook]:
        return Diagnosis(
            Cause.ATTACH_TYPE,
            f"a program of type {at.kind} cannot be attached to a {at.hook}",
            f"let its section say {' or '.join(sorted(_TAKES[at.hook]))}, or attach it elsewhere",
        )
    if at.errno == errno.EOPNOTSUPP and not at.hook:
        return Diagnosis(
            Cause.ATTACH_TYPE,
            "its section does not say where to attach it",
            "name the hook in the section, or attach it by hand",
        )
    if at.errno == ENOTSUPP and at.kind in {"tracing", "lsm"}:
        return Diagnosis(
            Cause.NOT_SUPPORTED,
            "this kernel has no BPF trampoline on this machine",
            "attach by kprobe instead of fentry",
        )
    return None


def _lsm_inactive(at: Situation) -> Diagnosis | None:
    """Say of a program that was loaded and attached that nothing calls it."""
    if at.errno == 0 and at.kind == "lsm" and at.lsms is not None and "bpf" not in at.lsms:
        active = ",".join(at.lsms)
        return Diagnosis(
            Cause.LSM_INACTIVE,
            f"the program is attached and never runs: bpf is not among the active security modules ({active})",
            f"boot with lsm={active},bpf",
        )
    return None


RULES: tuple[Rule, ...] = (_kprobe, _tracepoint, _pin, _interface, _attach_type, _lsm_inactive)
