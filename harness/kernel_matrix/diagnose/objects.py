"""Rules about objects: what libbpf does not take, maps, externs, programs refused before they are verified. Pure."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence

from kernel_matrix.diagnose import sections
from kernel_matrix.diagnose.situation import (
    ENOTSUPP,
    Cause,
    Diagnosis,
    MapFacts,
    Rule,
    Situation,
    advise,
    last_line,
    libbpf_line,
)

#: mm/percpu.c, PCPU_MIN_UNIT_SIZE: the largest piece of per-CPU memory
PERCPU_BYTES = 32 << 10
#: linux/filter.h, MAX_BPF_STACK: a key that is longer does not fit a program's stack
_KEY_BYTES = 512
#: what a libbpf extern of each kind is called
_EXTERNS = {"func": "kfunc", "var": "variable"}
_KSYM = re.compile(r"extern \((?P<kind>func|var) ksym\) '(?P<name>[^']+)': (?P<why>.+)")
_UNRESOLVED = re.compile(r"extern '(?P<name>[^']+)' \(strong\): not resolved")
_NO_TYPE = re.compile(r"missing BPF prog type, check ELF section name '(?P<section>[^']+)'")
_CONFIG = re.compile(r"failed to open (?:and read )?system Kconfig")


def _legacy(at: Situation) -> Diagnosis | None:
    if at.stage != "open" or "legacy map definitions" not in at.log:
        return None
    return advise(
        Cause.LIBBPF,
        'its maps are declared as before BTF (SEC("maps")), which libbpf refuses since 1.0',
        "declare them in .maps, or try the object with its own loader (the command run)",
    )


def _section(at: Situation) -> Diagnosis | None:
    if not (match := _NO_TYPE.search(at.log)):
        return None
    near = sections.near(match["section"])
    hint = f" (did you mean {near}?)" if near else ""
    return advise(Cause.LIBBPF, f"it knows no section {match['section']}{hint}", "name the section that libbpf knows")


def _old_libbpf(at: Situation) -> Diagnosis | None:
    """Explain a section that libbpf knows, but not the one of this machine: it was refused without an errno."""
    if at.stage != "open" or at.errno or not at.target:
        return None
    return advise(Cause.LIBBPF, at.target, "install a newer libbpf, or try the object in a guest (--kernel)")


def _extern(at: Situation) -> Diagnosis | None:
    """Explain an extern that libbpf does not resolve: it refuses the whole object, every program of it."""
    if at.stage != "load":
        return None
    if _CONFIG.search(at.log):
        return advise(
            Cause.NO_CONFIG,
            "it reads the kernel's configuration, and neither /proc/config.gz nor /boot/config-RELEASE can be read",
            "install or mount that file, or declare the option __weak",
        )
    if match := _KSYM.search(at.log):
        return _ksym(at, _EXTERNS[match["kind"]], match["name"], match["why"])
    if match := _UNRESOLVED.search(at.log):
        name = match["name"]
        if name.startswith("CONFIG_"):
            return advise(
                Cause.SYMBOL, f"the kernel's configuration does not set {name}", f"declare {name} __weak: it is 0 then"
            )
        return _ksym(at, "symbol", name, "not found")
    return None


def _ksym(at: Situation, what: str, name: str, why: str) -> Diagnosis:
    if "not found" not in why and "failed to find" not in why:
        return advise(
            Cause.SYMBOL,
            f"the {what} {name} is another on this kernel than the object declares: {why}",
            "declare it as this kernel's BTF has it, or another flavour of it for each kernel (NAME___suffix)",
        )
    near = f"; near: {', '.join(at.near[:3])}" if at.near else ""
    return advise(
        Cause.SYMBOL,
        f"the kernel offers no {what} {name} to BPF programs{near}",
        "declare it __weak and ask first (bpf_ksym_exists): one strong extern refuses every program of the object",
    )


def _map(at: Situation) -> Diagnosis | None:
    if at.stage != "map_create" or at.map is None:
        return None
    refused = at.map
    if f"BPF_MAP_TYPE_{refused.type.upper()}" in at.absent and at.errno in {errno.EINVAL, errno.E2BIG}:
        return advise(
            Cause.NOT_SUPPORTED,
            f"this kernel does not make a map of type {refused.type} ({refused.name}){_only_users(refused)}",
            _without(refused),
        )
    if at.errno in {errno.E2BIG, errno.ENOMEM}:
        return _large_map(refused, at.errno)
    if at.errno == errno.EINVAL and not refused.entries:
        return advise(
            Cause.UNDECLARED,
            f"map {refused.name} ({refused.type}) has no max_entries: its loader sets it",
            "declare max-entries of the map in the table",
        )
    if at.errno == errno.EINVAL:
        return advise(
            Cause.UNKNOWN,
            f"the kernel knows the type of map {refused.name} and refuses its sizes or flags: {_sizes(refused)}",
            "compare them with what map_alloc_check() of that type demands on this kernel",
        )
    return None


def _large_map(refused: MapFacts, number: int) -> Diagnosis:
    value = (refused.value + 7) // 8 * 8
    if refused.type.startswith(("percpu", "lru_percpu")) and value > PERCPU_BYTES:
        return advise(
            Cause.MAP_TOO_LARGE,
            f"the value of per-CPU map {refused.name} is {refused.value} bytes, and a kernel takes {PERCPU_BYTES}"
            " (PCPU_MIN_UNIT_SIZE)",
            "split the value, or use a plain array indexed by the processor",
        )
    if number == errno.E2BIG and refused.key > _KEY_BYTES:
        return advise(
            Cause.MAP_TOO_LARGE,
            f"the key of map {refused.name} is {refused.key} bytes, and a kernel takes {_KEY_BYTES} (MAX_BPF_STACK)",
            "use a shorter key, such as a hash of it",
        )
    reason = "has no memory for" if number == errno.ENOMEM else "makes no"
    return advise(
        Cause.MAP_TOO_LARGE,
        f"the kernel {reason} map {refused.name}: {_sizes(refused)}",
        "use fewer or smaller entries, or BPF_F_NO_PREALLOC for a hash",
    )


def _sizes(refused: MapFacts) -> str:
    flags = f", flags {refused.flags:#x}" if refused.flags else ""
    return f"{refused.type}, {refused.entries} entries, key {refused.key} bytes, value {refused.value} bytes{flags}"


def _only_users(refused: MapFacts) -> str:
    """Return who uses the map, where not every program does: libbpf makes it for all of them."""
    if not refused.users or len(refused.users) == refused.programs:
        return ""
    return f"; only {_joined(refused.users)} use{'s' if len(refused.users) == 1 else ''} it"


def _without(refused: MapFacts) -> str:
    if not refused.users:
        return f"leave the map out there: bpf_map__set_autocreate({refused.name}, false)"
    return (
        f"leave it out there with what uses it: bpf_map__set_autocreate({refused.name}, false), and"
        f" bpf_program__set_autoload(..., false) for {_joined(refused.users)}"
    )


def _joined(names: Sequence[str]) -> str:
    return ", ".join(names)


def _pinned(at: Situation) -> Diagnosis | None:
    if at.stage == "pin" and at.map is not None and "mismatch" in at.log:
        return advise(
            Cause.PIN,
            f"a map is pinned as {at.map.name} already, and is made otherwise: {_sizes(at.map)}",
            "remove the stale pin, or give the map another name",
        )
    return None


def _before_the_verifier(at: Situation) -> Diagnosis | None:
    """Explain a program that is refused without a word of the verifier: its type, its flags, or libbpf itself."""
    if at.stage != "load" or at.errno not in {errno.EINVAL, errno.EOPNOTSUPP, ENOTSUPP} or last_line(at.log):
        return None
    if at.kind and f"BPF_PROG_TYPE_{at.kind.upper()}" in at.absent:
        return advise(
            Cause.NOT_SUPPORTED,
            f"this kernel does not know programs of type {at.kind}",
            "use another program type, or a kernel that has it",
        )
    if ".frags" in at.section and "xdp_has_frags" in at.absent:
        return advise(
            Cause.NOT_SUPPORTED,
            "this kernel has no XDP for frames in fragments (xdp.frags, since 5.18)",
            "load it as xdp there",
        )
    if at.absent_attach_type:
        return advise(
            Cause.NOT_SUPPORTED,
            f"this kernel does not know the attach type {at.absent_attach_type}",
            "use a kernel that has it",
        )
    if not at.section or libbpf_line(at.log):
        return None
    return advise(
        Cause.UNKNOWN,
        f"the program (type {at.kind or 'unknown'}, section {at.section}) is refused before it is verified, and the"
        " kernel does not say why",
        "compare its type, its attach type and its flags with what this kernel knows",
    )


def _record(at: Situation) -> Diagnosis | None:
    """Explain a tracepoint's EACCES: perf_event_set_bpf_prog() compares max_ctx_offset with the record's end."""
    if at.stage != "attach" or at.hook != "tracepoint" or at.errno != errno.EACCES or at.record is None:
        return None
    return advise(
        Cause.RECORD,
        f"it reads behind the end of the record of {at.target}, which is {at.record} bytes on this kernel: its"
        " format is another here",
        "read the fields by CO-RE: struct trace_event_raw_* of vmlinux.h",
    )


#: explicit messages of libbpf, and maps
EXPLICIT: tuple[Rule, ...] = (_legacy, _section, _old_libbpf, _extern, _map, _pinned)
#: conclusions from an errno
CONCLUDED: tuple[Rule, ...] = (_before_the_verifier, _record)
