"""Rules about the target of a program: functions, tracepoints, interfaces, pins, hooks of another type, the LSM."""

from __future__ import annotations

import errno
import re

from kernel_matrix.diagnose.data.sections import TRAMPOLINES
from kernel_matrix.diagnose.needs import PERF_HOOKS
from kernel_matrix.diagnose.situation import ENOTSUPP, Cause, Diagnosis, Rule, Situation, advise, symbol

#: hook -> the program types that it accepts
_ACCEPTS = {"kprobe": {"kprobe"}, "tracepoint": {"tracepoint"}, "XDP": {"xdp"}, "tcx": {"sched_cls", "sched_act"}}


#: sections whose programs libbpf attaches to a system call's own function
_SYSCALLS = frozenset({"ksyscall", "kretsyscall"})
_RAW = frozenset({"raw_tp", "raw_tracepoint"})


def _word(at: Situation) -> str:
    """Return the first word of the program's section, without the suffixes that do not concern where it attaches."""
    return at.section.partition("/")[0].removesuffix(".s").removesuffix(".w")


def _kprobe(at: Situation) -> Diagnosis | None:
    if at.stage != "attach" or at.hook != "kprobe":
        return None
    name = at.target.partition("+")[0]
    if at.errno == errno.ENOENT:
        return _no_function(at, name)
    if at.errno == errno.EADDRNOTAVAIL:
        # trace_kprobe.c, number_of_same_symbols(), since 6.7 and in stable trees
        return advise(
            Cause.SYMBOL,
            f"the kernel has several functions {name}, and a kprobe is for one",
            "attach to what calls the one that is meant, or by its address",
        )
    if inside := _inside(at):
        return inside
    if at.errno == errno.EINVAL and at.kind in {"", "kprobe"}:
        # check_kprobe_address_safe()
        why = "may not be probed: it is on the blacklist of kprobes, or there is code that the kernel itself changes"
        return advise(Cause.ATTACH_TYPE, f"{at.target} {why}", "attach to a function that calls it")
    return None


def _inside(at: Situation) -> Diagnosis | None:
    """Explain an offset at which there can be no probe."""
    if at.errno == errno.EILSEQ:
        return advise(
            Cause.ATTACH_TYPE,
            f"{at.target} is not where an instruction begins",
            "attach to the beginning of the function: offsets differ between kernels",
        )
    if at.errno == errno.EINVAL and _word(at) == "kretprobe" and "+" in at.target:
        # trace_kprobe.c, trace_kprobe_create(): kprobe_on_func_entry()
        return advise(
            Cause.ATTACH_TYPE,
            f"a kretprobe is set at the entry of a function, and {at.target} is inside of one",
            "name the function without an offset, or attach a kprobe there",
        )
    return None


#: arguments that a trampoline passes in registers
_ARGUMENTS = 6


def _trampoline(at: Situation) -> Diagnosis | None:
    """Explain why the trampoline at a function's beginning is not made.

    EBUSY: what is there is not what it would replace. bpf_arch_text_poke() where ftrace has no place there;
    register_ftrace_direct() where another is attached directly.
    """
    if at.stage != "attach" or _word(at) not in TRAMPOLINES:
        return None
    name = at.section.partition("/")[2]
    if at.errno == ENOTSUPP and (at.arguments or 0) > _ARGUMENTS:
        # arch_prepare_bpf_trampoline(), before "allow function arguments up to 12 for TRACING"
        return advise(
            Cause.NOT_SUPPORTED,
            f"{name} has {at.arguments} arguments here, and a trampoline of this kernel passes {_ARGUMENTS}",
            "attach a kprobe there, or to another function: stable kernels add arguments, too",
        )
    if at.errno != errno.EBUSY:
        return None
    if at.traceable is False:
        return advise(
            Cause.ATTACH_TYPE,
            f"{name} cannot be traced: it is compiled without the place for ftrace at its beginning (notrace, inline)",
            "attach a kprobe to it, or attach to what calls it, or to a tracepoint",
        )
    return advise(
        Cause.ATTACH_TYPE,
        f"something else is attached to the beginning of {name}, and leaves no room",
        "look at what traces, replaces or patches it; detach that, or attach a kprobe",
    )


def _no_function(at: Situation, name: str) -> Diagnosis | None:
    kprobes = at.config.get("CONFIG_KPROBES", "")
    if kprobes == "n" or (name in at.symbols and not kprobes):
        return advise(
            Cause.NOT_SUPPORTED, "the kernel has no kprobes (CONFIG_KPROBES)", "use fentry, or a kernel that has them"
        )
    if _word(at) in _SYSCALLS:
        return _no_call(name)
    return None if name in at.symbols else symbol(at, name)


def _no_call(name: str) -> Diagnosis:
    return advise(
        Cause.SYMBOL,
        f"this kernel has no system call {name}",
        'leave the program out there (set_autoload), or SEC("?...")',
    )


def _tracepoint(at: Situation) -> Diagnosis | None:
    raw = _word(at) in _RAW
    if at.stage != "attach" or at.errno != errno.ENOENT or not (raw or at.hook == "tracepoint"):
        return None
    if not raw and not at.mounted("tracefs"):
        return advise(Cause.NOT_MOUNTED, "tracefs is not mounted", "mount -t tracefs tracefs /sys/kernel/tracing")
    for start in ("syscalls:sys_enter_", "syscalls:sys_exit_"):
        if at.target.startswith(start):
            return _no_call(at.target.removeprefix(start))
    name = at.section.partition("/")[2] or at.target if raw else at.target
    return advise(
        Cause.SYMBOL,
        f"there is no tracepoint {name}" + (f"; near: {', '.join(at.near[:3])}" if at.near else ""),
        "look it up in /sys/kernel/tracing/available_events; those of a module are there when it is loaded",
    )


#: libbpf's elf.c and usdt.c
_NO_FUNCTION = re.compile(r"failed to find symbol '(?P<name>[^']+)' in '(?P<file>[^']+)'")
_NO_PROBE = re.compile(
    r"no (?:usable )?(?:valid )?USDT|failed to find USDT note|usdt: (?:unable to find|no .*matching)"
)


def _user(at: Situation) -> Diagnosis | None:
    """Explain a probe of a program or library."""
    if at.stage != "attach":
        return None
    if match := _NO_FUNCTION.search(at.log):
        return advise(
            Cause.SYMBOL,
            f"{match['file']} has no function {match['name']}",
            "look it up with nm -D, or name a file that has it: it may be stripped, inlined, or in another library",
        )
    if "failed to find USDT support BPF maps" in at.log:
        return advise(
            Cause.OBJECT, "it has not the maps that libbpf uses for USDT", "include bpf/usdt.bpf.h, and attach it again"
        )
    if "attaching to shared libraries without specific PID is not supported" in at.log:
        # usdt.c, collect_usdt_targets(): the probe's cookie (5.15) says which of a library's probes it is
        return advise(
            Cause.NOT_SUPPORTED,
            "without cookies of perf events, which this kernel has not, libbpf attaches a library's USDT probe to one "
            "process only",
            "attach it for one process (bpf_program__attach_usdt() with its PID), or name a program, not a library",
        )
    if _word(at) == "usdt" and at.errno == errno.ENOENT:
        return advise(
            Cause.SYMBOL,
            f"there is no probe {at.section.partition('/')[2] or at.target}",
            "look it up with readelf -n: the file must be built with its probes (SDT)",
        )
    return None


def _not_built_in(at: Situation) -> Diagnosis | None:
    """Detect a missing attach type: link_create() returns EINVAL if it is unknown, EOPNOTSUPP if it is not built in."""
    if at.stage == "attach" and at.hook == "netkit" and at.errno in {errno.EINVAL, errno.EOPNOTSUPP}:
        return advise(
            Cause.NOT_SUPPORTED, "this kernel has no netkit (since 6.7)", "attach by tc or tcx to a veth pair there"
        )
    if at.stage == "attach" and at.errno in {errno.EINVAL, errno.EOPNOTSUPP} and (lacking := at.absent_attach_type):
        return advise(
            Cause.NOT_SUPPORTED, f"this kernel does not know the attach type {lacking}", "use a kernel that has it"
        )
    if at.stage != "attach" or at.errno != errno.EINVAL:
        return None
    if at.hook == "tcx" and at.kind in {"", *_ACCEPTS["tcx"]}:
        return advise(Cause.NOT_SUPPORTED, "this kernel has no tcx", "attach by clsact, or use a kernel that has it")
    if at.path == "link" and at.hook in PERF_HOOKS:
        return advise(
            Cause.NOT_SUPPORTED, "this kernel has no links of perf events", "attach by ioctl: PERF_EVENT_IOC_SET_BPF"
        )
    return None


def _kprobe_multi(at: Situation) -> Diagnosis | None:
    if at.stage != "attach" or at.hook != "kprobe.multi":
        return None
    if at.errno in {errno.EINVAL, errno.EOPNOTSUPP}:
        return advise(
            Cause.NOT_SUPPORTED,
            "this kernel has no kprobe.multi, which needs 5.18 and CONFIG_FPROBE",
            "attach a kprobe to each function there",
        )
    if at.errno in {errno.ENOENT, errno.ESRCH}:
        return advise(
            Cause.SYMBOL,
            f"no function of the kernel that may be probed matches {at.target}",
            "look in available_filter_functions of tracefs",
        )
    return None


def _token(at: Situation) -> Diagnosis | None:
    """Explain errors of bpf_token_create(), which refuses a bpffs of the initial user namespace."""
    if at.stage != "token":
        return None
    if at.errno == errno.EOPNOTSUPP:
        return advise(
            Cause.NOT_SUPPORTED,
            "a token is made of the bpffs of another user namespace than the initial one",
            "make it there; here capabilities do what it would",
        )
    if at.errno == errno.EINVAL:
        return advise(
            Cause.NOT_SUPPORTED, "this kernel has no BPF tokens", "have a privileged process load, and inherit its fds"
        )
    return None


def _pin(at: Situation) -> Diagnosis | None:
    if at.stage != "pin":
        return None
    if at.errno == errno.EEXIST:
        return advise(Cause.PIN, f"{at.target} is there already", "delete it, or pin under another name")
    if not at.mounted("bpf"):
        return advise(Cause.NOT_MOUNTED, "bpffs is not mounted", "mount -t bpf bpf /sys/fs/bpf")
    if at.errno in {errno.EINVAL, errno.EPERM}:
        return advise(Cause.PIN, f"{at.target} is not on bpffs", "pin below a mount of type bpf, such as /sys/fs/bpf")
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
        return advise(Cause.INTERFACE, *_XDP[at.errno])
    if at.stage == "attach" and at.hook == "XDP" and at.errno == errno.EINVAL and at.map is not None:
        # generic_xdp_install(), until 11941f8a8536 ("bpf: cpumap: Implement generic cpumap") and 2ea5eabaf04a ("bpf:
        # devmap: Implement devmap prog execution for generic XDP")
        return advise(
            Cause.NOT_SUPPORTED,
            f"generic XDP of this kernel takes no program that uses a {at.map.type} whose entries may hold programs: "
            f"{at.map.name}, with values of {at.map.value} bytes",
            "attach it in native mode, or declare the map with values of 4 bytes",
        )
    return None


def _attach_type(at: Situation) -> Diagnosis | None:
    if at.stage != "attach" or at.errno not in {errno.EINVAL, errno.EOPNOTSUPP, ENOTSUPP}:
        return None
    if at.hook in _ACCEPTS and at.kind and at.kind not in _ACCEPTS[at.hook]:
        return advise(
            Cause.ATTACH_TYPE,
            f"a program of type {at.kind} cannot be attached to a {at.hook}",
            f"let its section say {' or '.join(sorted(_ACCEPTS[at.hook]))}, or attach it elsewhere",
        )
    if at.errno == errno.EOPNOTSUPP and not at.hook and not at.path:
        return advise(
            Cause.ATTACH_TYPE,
            "its section does not say where to attach it",
            "name the hook in the section, or attach it by hand",
        )
    if at.errno == ENOTSUPP and at.kind in {"tracing", "lsm"}:
        return advise(
            Cause.NOT_SUPPORTED,
            "this kernel has no BPF trampoline on this machine",
            "attach by kprobe instead of fentry",
        )
    return None


def _taken(at: Situation) -> Diagnosis | None:
    """Explain EEXIST and EBUSY of hooks that one program, or one struct of a name, has for itself."""
    if at.stage != "attach" or at.errno not in {errno.EEXIST, errno.EBUSY}:
        return None
    if at.kind == "struct_ops" and at.errno == errno.EEXIST:
        # tcp_register_congestion_control() and its siblings
        return advise(
            Cause.STRUCT,
            f"the kernel has a struct registered already under the name that {at.target} has",
            "give it a name of its own: the kernel's modules and other loaders have registered theirs",
        )
    if at.kind == "struct_ops":
        # bpf_scx_reg() and others, of which one is active at a time
        return advise(
            Cause.STRUCT,
            f"another struct of the type of {at.target} is active, and one can be",
            "detach that one first",
        )
    return advise(Cause.ATTACH_TYPE, "something is attached there already", "detach it, or replace it")


def _lsm_inactive(at: Situation) -> Diagnosis | None:
    """Detect a loaded and attached LSM program that is never called."""
    if at.errno == 0 and at.kind == "lsm" and at.lsms is not None and "bpf" not in at.lsms:
        active = ",".join(at.lsms)
        return advise(
            Cause.LSM_INACTIVE,
            f"the program is attached and never runs: bpf is not among the active security modules ({active})",
            f"boot with lsm={active},bpf",
        )
    return None


RULES: tuple[Rule, ...] = (
    _kprobe_multi,
    _not_built_in,
    _token,
    _user,
    _kprobe,
    _trampoline,
    _tracepoint,
    _pin,
    _interface,
    _attach_type,
    _taken,
    _lsm_inactive,
)
