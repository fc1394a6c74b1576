"""What the running kernel knows by name: its BTF's names, kfuncs, tracepoints and the size of their records."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from kernel_matrix.guest.bpf.btf import Btf
from kernel_matrix.guest.bpf.step_error import StepError

_BTF = Path("/sys/kernel/btf/vmlinux")
_TRACEFS = Path("/sys/kernel/tracing")
_FIELD = re.compile(r"offset:(\d+);\s*size:(\d+);")
_KSYM = re.compile(r"extern \(func ksym\) '([^']+)'")
_HOOK = re.compile(r"failed to find kernel BTF type ID of '([^']+)'")
#: first word of a section -> how the names of the kernel's types begin that libbpf looks up for it
_HOOKS = {"lsm": "bpf_lsm_", "lsm_cgroup": "bpf_lsm_", "tp_btf": "btf_trace_", "iter": "bpf_iter_"}

#: what CO-RE looks for, without the suffix of a flavour: the first field behind a struct
_FIELD_OF = re.compile(r"failed to resolve CO-RE relocation .*\bstruct (?P<struct>\w+?)(?:___\w+)?\.(?P<field>\w+)")


def absent(names: Iterable[str]) -> frozenset[str]:
    """Return which of these names the kernel's BTF does not have; empty where the kernel shows none."""
    wanted = tuple(names)
    if not wanted or not _BTF.exists():
        return frozenset()
    return frozenset(name for name in wanted if f"\0{name}\0".encode() not in _types())


@cache
def _types() -> bytes:
    return _BTF.read_bytes()


def near(stage: str, hook: str, target: str, error: StepError) -> tuple[str, ...]:
    """Return names that resemble the missing one of a step: kfuncs or tracepoints."""
    if stage == "load" and (missing := _KSYM.search(error.log)):
        return tuple(difflib.get_close_matches(missing[1], _kernel_functions(), 3, 0.75))
    if stage == "load" and (missing := _FIELD_OF.search(error.log)):
        return tuple(difflib.get_close_matches(missing["field"], _members(missing["struct"]), 3, 0.7))
    if stage == "load" and (missing := _HOOK.search(error.log)):
        start = _HOOKS.get(error.section.partition("/")[0].partition(".")[0])
        return tuple(difflib.get_close_matches(missing[1], _typed(start), 3, 0.75)) if start else ()
    if stage == "attach" and hook == "tracepoint" and error.errno == errno.ENOENT:
        return tuple(difflib.get_close_matches(target, _tracepoints(), 3, 0.75))
    if stage == "attach" and error.section.startswith(("raw_tp", "raw_tracepoint")) and error.errno == errno.ENOENT:
        events = [name.partition(":")[2] for name in _tracepoints()]
        return tuple(difflib.get_close_matches(error.section.partition("/")[2], events, 3, 0.75))
    return ()


def record_size(tracepoint: str) -> int | None:
    """Return the end of the last field of a tracepoint's record in bytes; None where tracefs does not say."""
    path = _TRACEFS / "events" / tracepoint.replace(":", "/", 1) / "format"
    try:
        fields = _FIELD.findall(path.read_text())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    return max((int(offset) + int(size) for offset, size in fields), default=None)


def arguments(function: str) -> int | None:
    """Return how many arguments a function of the kernel has; None where its types do not say."""
    if not _BTF.exists():
        return None
    with Btf.of_kernel() as types:
        try:
            return types.arguments(function)
        except KeyError:
            return None


def _members(struct: str) -> tuple[str, ...]:
    """Return the names of the members of a kernel's struct; empty where it has no such struct, or shows no types."""
    if not _BTF.exists():
        return ()
    with Btf.of_kernel() as types:
        try:
            return types.names(struct)
        except KeyError:
            return ()


def _typed(start: str) -> list[str]:
    """Return what the names of the kernel's types have behind this beginning."""
    if not _BTF.exists():
        return []
    return sorted({name.decode() for name in re.findall(rb"(?<=\0)" + start.encode() + rb"(\w+)(?=\0)", _types())})


@cache
def _kernel_functions() -> tuple[str, ...]:
    """Return the functions that the kernel lists by their types: those that programs may call are among them."""
    text = Path("/proc/kallsyms").read_text(errors="replace")
    names = set(re.findall(r" __BTF_ID__func__(\w+?)__\d+$", text, re.MULTILINE))
    return tuple(sorted(name for name in names if not name.startswith("bpf_lsm_")))


def _tracepoints() -> list[str]:
    try:
        return (_TRACEFS / "available_events").read_text().split()
    except (FileNotFoundError, PermissionError):
        return []
