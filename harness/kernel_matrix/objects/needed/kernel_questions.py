"""What is asked of a kernel's files about one need: each question is a function of the kernel's types. Pure.

An answer is `no` only where the files prove it. vmlinux alone is read: what a module may have is unknown.
"""

from __future__ import annotations

from collections.abc import Callable

from kernel_matrix.arch import CURRENT
from kernel_matrix.objects.section_names import Section
from kernel_matrix.objects.types.kernel_types import KernelTypes
from kernel_matrix.shared.bpf.btf import Kind
from kernel_matrix.shared.bpf.compatibility import Answer, State

Question = Callable[[KernelTypes], Answer]

UNREAD = "only vmlinux was read, not the modules"
#: attach type or word of a section -> how the kernel's types name what it is attached to
_NAMED = {
    "kprobe": ("", Kind.FUNC), "kretprobe": ("", Kind.FUNC),
    "ksyscall": (CURRENT.syscall_prefix, Kind.FUNC), "kretsyscall": (CURRENT.syscall_prefix, Kind.FUNC),
    "TRACE_FENTRY": ("", Kind.FUNC), "TRACE_FEXIT": ("", Kind.FUNC), "TRACE_FSESSION": ("", Kind.FUNC),
    "MODIFY_RETURN": ("", Kind.FUNC), "TRACE_ITER": ("bpf_iter_", Kind.FUNC),
    "TRACE_RAW_TP": ("btf_trace_", Kind.TYPEDEF), "raw_tracepoint": ("btf_trace_", Kind.TYPEDEF),
    "raw_tp": ("btf_trace_", Kind.TYPEDEF), "raw_tracepoint.w": ("btf_trace_", Kind.TYPEDEF),
    "raw_tp.w": ("btf_trace_", Kind.TYPEDEF),
}  # fmt: skip
#: these are never in a module: a kernel without one has none
_HOOKS = frozenset({"LSM_MAC", "LSM_CGROUP"})


def has(enumeration: str, enumerator: str, refused_at: str) -> Question:
    """Return the question whether a kernel knows a type of something."""

    def question(types: KernelTypes) -> Answer:
        if types.has(enumeration, enumerator):
            return Answer(State.YES)
        return Answer(State.NO, "unknown to this kernel", refused_at=refused_at)

    return question


def numbered(enumeration: str, number: int, text: str, refused_at: str = "") -> Question:
    """Return the question whether a kernel knows a number of a helper or of a type of maps."""

    def question(types: KernelTypes) -> Answer:
        if types.named(enumeration, number):
            return Answer(State.YES)
        return Answer(State.NO, f"unknown to this kernel: {text}", refused_at=refused_at)

    return question


def target(section: Section) -> Question | None:
    """Return the question whether a kernel has what a program is attached to; None: it is not the kernel's."""
    name = section.target.partition("+")[0]
    if section.attach in _HOOKS:
        return _type_named(f"bpf_lsm_{name}", Kind.FUNC, certain=True)
    if section.type == "TRACEPOINT":
        _, _, event = name.partition("/")
        for start in ("sys_enter_", "sys_exit_"):
            if event.startswith(start):
                return _type_named(CURRENT.syscall_prefix + event.removeprefix(start), Kind.FUNC)
        return _type_named(f"btf_trace_{event}", Kind.TYPEDEF) if event else None
    prefix, kind = _NAMED.get(section.attach) or _NAMED.get(section.word) or ("", Kind.VOID)
    return _type_named(prefix + name, kind) if kind else None


def _type_named(name: str, kind: Kind, *, certain: bool = False) -> Question:
    """Return the question whether a kernel's types have a name; ``certain``: no module can have it."""

    def question(types: KernelTypes) -> Answer:
        if types.btf.find(name, kind):
            return Answer(State.YES)
        if certain:
            return Answer(State.NO, f"no {name}", refused_at="load")
        return Answer(State.UNKNOWN, f"no {name} in its types: {UNREAD}")

    return question


def option(name: str) -> Question:
    """Return the question for the value of an option of the configuration."""

    def question(types: KernelTypes) -> Answer:
        if not name.startswith("CONFIG_"):
            # LINUX_KERNEL_VERSION and LINUX_HAS_*: libbpf answers them itself
            return Answer(State.YES, "from the loader")
        if not types.config:
            return Answer(State.UNKNOWN, "its configuration is unavailable")
        if name in types.config:
            return Answer(State.YES, types.config[name])
        return Answer(State.NO, "not set", refused_at="load")

    return question


def function(name: str) -> Question:
    """Return the question whether programs may call a function of the kernel."""

    def question(types: KernelTypes) -> Answer:
        number = types.btf.find(name, Kind.FUNC)
        if not number:
            return Answer(State.UNKNOWN, f"no such function in its types: {UNREAD}")
        if number in types.callable_functions:
            return Answer(State.YES)
        return Answer(State.UNKNOWN, "the kernel has the function; whether programs may call it is not in its types")

    return question


def symbol(name: str) -> Question:
    """Return the question whether a kernel has a variable."""

    def question(types: KernelTypes) -> Answer:
        known = types.btf.find(name, Kind.VAR)
        return (
            Answer(State.YES) if known else Answer(State.UNKNOWN, "not in its types; its list of symbols was not read")
        )

    return question
