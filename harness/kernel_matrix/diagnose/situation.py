"""A refused step with the state of the process and the machine, and its possible diagnoses. Pure data."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kernel_matrix.diagnose.remedy import Remedy

#: linux/capability.h
CAPABILITIES = {
    "CAP_DAC_OVERRIDE": 1,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_RESOURCE": 24,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
# kernel/bpf/syscall.c: is_net_admin_prog_type(), is_perfmon_prog_type(), and the two types without a requirement
_NET_ADMIN_TYPES = frozenset({
    "sched_cls", "sched_act", "xdp", "lwt_in", "lwt_out", "lwt_xmit", "lwt_seg6local", "sk_skb", "sk_msg",
    "flow_dissector", "cgroup_device", "cgroup_sock", "cgroup_sock_addr", "cgroup_sockopt", "cgroup_sysctl", "sock_ops",
    "ext", "netfilter",
})  # fmt: skip
_PERFMON_TYPES = frozenset({
    "kprobe", "tracepoint", "perf_event", "raw_tracepoint", "raw_tracepoint_writable", "tracing", "lsm", "struct_ops",
    "ext",
})  # fmt: skip
#: types that an unprivileged process may load when unprivileged_bpf_disabled is 0
UNPRIVILEGED_TYPES = frozenset({"socket_filter", "cgroup_skb"})
#: linux/errno.h; internal to the kernel, but it reaches user space
ENOTSUPP = 524
#: a helper that came together with functions that helpers call back (BPF_PSEUDO_FUNC): 69c087ba6225, 5.13
CALLBACKS = "BPF_FUNC_for_each_map_elem"
# enum libbpf_errno of libbpf's libbpf.h
LIBELF, FORMAT, ENDIAN = 4000, 4001, 4003


class Cause(enum.StrEnum):
    """The kind of a refusal's cause."""

    PERMISSION = "insufficient permission"
    NOT_SUPPORTED = "BPF not supported"
    TOO_LARGE = "program too large"
    ATTACH_TYPE = "invalid attach type"
    SYMBOL = "symbol missing"
    NOT_MOUNTED = "not mounted"
    LSM_INACTIVE = "LSM inactive"
    MEMLOCK = "memlock"
    NO_BTF = "no BTF"
    LOCKDOWN = "lockdown"
    OBJECT = "not an object for this machine"
    LIBBPF = "not an object for libbpf"
    UNDECLARED = "undeclared"
    NO_CONFIG = "no kernel configuration"
    MAP_TOO_LARGE = "map too large"
    MAP = "invalid map"
    TABLE = "programs of different types"
    STRUCT = "struct_ops"
    RECORD = "another record"
    VERIFIER = "refused by the verifier"
    INTERFACE = "interface"
    PIN = "pin"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One cause and one remedy."""

    cause: Cause
    #: one line: the reason
    why: str
    cure: Remedy
    #: an alternative remedy: by a sysctl when the first is by capabilities
    other: Remedy | None = None

    @property
    def remedy(self) -> str:
        """The remedies in one line."""
        return f"{self.cure}, or {self.other}" if self.other else str(self.cure)

    def __str__(self) -> str:
        return f"cause: {self.cause}: {self.why}\nremedy: {self.remedy}"


@dataclass(frozen=True, slots=True)
class MapFacts:
    """A map that was refused: what it is created from, and who uses it; sizes in bytes."""

    name: str
    #: libbpf's name of its type, such as ``percpu_array``
    type: str
    key: int
    value: int
    entries: int
    flags: int = 0
    #: the programs of its object that use it, and how many programs that has
    users: tuple[str, ...] = ()
    programs: int = 0


@dataclass(frozen=True, slots=True)
class Situation:
    """A refused step (errno 0: it succeeded), with the state of the process and the machine."""

    #: open, map_create, load, attach, detach, pin, ...
    stage: str
    errno: int = 0
    #: libbpf's name of the program's type; empty when no program takes part or its type is unknown
    kind: str = ""
    #: the hook: kprobe, tracepoint, XDP, ...; empty: that of the program's section
    hook: str = ""
    #: the path to that hook, as in docs/capabilities.md: perf, tracefs, link, netlink, clsact, prog_attach, ...; empty:
    #: unknown. At a stage other than attach: the path by which the same process will attach the program
    path: str = ""
    #: the kernel function, tracepoint, hook, map type, id or file of the step
    target: str = ""
    #: the messages of libbpf and the verifier
    log: str = ""
    uid: int = 0
    #: effective capabilities, a bit each by number
    effective: int = 0
    #: whether the process is in another user namespace than the initial one, in which it has its capabilities
    in_user_namespace: bool = False
    #: whether it used a BPF token
    token: bool = False
    #: whether the mode and owner of the file, or of its folders, refuse the uid
    denied: bool = False
    #: RLIMIT_MEMLOCK in bytes, None: without limit
    memlock: int | None = None
    #: whether the kernel charges BPF's memory to RLIMIT_MEMLOCK (before 5.11)
    charges_memlock: bool = False
    #: whether kernel.unprivileged_bpf_disabled closes all of bpf(), not only creating and loading (before 5.19)
    closes_all: bool = False
    #: sysctl -> value, such as kernel.perf_event_paranoid; the kernel does not have those that are missing
    sysctls: Mapping[str, int] = field(default_factory=dict)
    #: mount point -> type of the file system
    mounts: Mapping[str, str] = field(default_factory=dict)
    #: CONFIG_X -> y, m or n; empty: unknown
    config: Mapping[str, str] = field(default_factory=dict)
    #: the active security modules; None: unknown
    lsms: tuple[str, ...] | None = None
    #: none, integrity or confidentiality
    lockdown: str = "none"
    #: whether the kernel shows its BTF
    btf: bool = True
    #: of the function that a program is attached to by its section; None: unknown
    arguments: int | None = None
    #: names of kernel functions that are similar to the target
    symbols: tuple[str, ...] = ()
    #: whether ftrace can trace the function that a program is attached to by its section; None: unknown
    traceable: bool | None = None
    #: kfuncs, tracepoints, hooks or fields whose names are similar to a missing one
    near: tuple[str, ...] = ()
    #: names that the kernel's BTF lacks, of those that matter for the step: BPF_MAP_TYPE_X, BPF_PROG_TYPE_X, ...
    absent: frozenset[str] = frozenset()
    #: names that were looked for in all modules of the kernel, and are in none
    in_no_module: frozenset[str] = frozenset()
    #: the map that was refused
    map: MapFacts | None = None
    #: the section of the program
    section: str = ""
    #: the size in bytes of a tracepoint's record; None: unknown
    record: int | None = None

    @property
    def absent_attach_type(self) -> str:
        """The attach type of the step that the kernel's BTF lacks; empty when it has it, or the step names none."""
        other = ("BPF_MAP_TYPE_", "BPF_PROG_TYPE_", "BPF_FUNC_", "BPF_F_", "xdp_")
        return next((name for name in sorted(self.absent) if not name.startswith(other)), "")

    def unset(self, option: str) -> str:
        """Return in words, behind a colon, that the kernel is built without this option; empty: it is not known to be.

        An option whose conditions do not hold is not in the configuration at all.
        """
        return f": {option} is not set" if option and self.config and self.config.get(option, "n") == "n" else ""

    def has(self, *names: str) -> bool:
        """Whether the process has one of these capabilities."""
        return any(self.effective >> CAPABILITIES[name] & 1 for name in names)

    def mounted(self, kind: str) -> bool:
        """Whether a file system of this type is mounted anywhere."""
        return kind in self.mounts.values()


Rule = Callable[[Situation], Diagnosis | None]


#: since 7.3 a report follows the verifier's usual last line
_REPORT = "Verification failed:"


def last_line(log: str) -> str:
    """Return the verifier's last message, without its statistics, its report, and libbpf's own lines."""
    lines = [line.strip() for line in log.partition(_REPORT)[0].splitlines()]
    useless = ("processed ", "verification time", "stack depth", "libbpf: ", "-- ", "cur state", "old state")
    useful = [line for line in lines if line and not line.startswith(useless)]
    return useful[-1] if useful else ""


#: what libbpf says in any case when it gives up
_BOILERPLATE = re.compile(
    r"-- (BEGIN|END) PROG LOAD LOG --|failed to load object|BPF program load failed|: failed to load"
    # said of any EPERM of root, whatever its limit is
    r"|permission error while running as root"
)


def libbpf_line(log: str) -> str:
    """Return the last line in which libbpf gives a reason of its own; empty when the log has none."""
    lines = [line.removeprefix("libbpf: ").strip() for line in log.splitlines() if line.startswith("libbpf: ")]
    useful = [line for line in lines if not _BOILERPLATE.search(line)]
    return useful[-1] if useful else ""


def suggestion(log: str) -> str:
    """Return the verifier's own suggestion, empty when it has none."""
    match = re.search(r"Suggestion:\n((?:[ \t]+\S.*\n?)+)", log)
    return " ".join(match[1].split()) if match else ""


def needed(kind: str) -> tuple[str, ...]:
    """Return the capabilities that loading a program of a type requires; CAP_SYS_ADMIN replaces each."""
    further = [("CAP_NET_ADMIN", _NET_ADMIN_TYPES), ("CAP_PERFMON", _PERFMON_TYPES)]
    return ("CAP_BPF", *[name for name, types in further if kind in types])


def advise(cause: Cause, why: str, advice: str) -> Diagnosis:
    """Return a diagnosis with advice as remedy, without capabilities and sysctls."""
    return Diagnosis(cause, why, Remedy(advice))


def symbol(at: Situation, name: str) -> Diagnosis:
    """Return the diagnosis for a missing kernel function, with functions of a similar name."""
    if at.stage == "load" and name in at.symbols:
        return advise(
            Cause.SYMBOL,
            f"the kernel has the function {name}, and no type of it in its BTF, by which programs attach to it here",
            "attach by kprobe",
        )
    similar = [similar_name for similar_name in at.symbols if similar_name != name]
    nowhere = in_no_module(at, name)
    if similar:
        shown = ", ".join(similar[:3])
        copied = similar[0].startswith(f"{name}.")
        advice = f"attach {'a kprobe ' if copied else ''}to {similar[0]} instead"
        return advise(
            Cause.SYMBOL,
            f"the kernel has no function {name}{nowhere}; it has {shown}",
            f"{advice} (a compiler's copy: its arguments may be others)" if copied else advice,
        )
    why = ", and no module of it has one: it is inlined, or has another name"
    return advise(
        Cause.SYMBOL,
        f"the kernel has no function {name}, nor one of a like name"
        + (why if nowhere else ": it is inlined, has another name, or is in a module that is not loaded"),
        "attach to what calls it, or to a tracepoint; look it up in /proc/kallsyms; if its loader chooses the function,"
        " declare it (targets)",
    )


def in_no_module(at: Situation, name: str) -> str:
    """Return what to add of a name that no module of the kernel has; empty where they were not searched for it."""
    return ", and no module of it has one" if name in at.in_no_module else ""
