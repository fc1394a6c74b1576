"""Rules about objects: what libbpf does not take, maps, externs, programs refused before they are verified. Pure."""

from __future__ import annotations

import errno
import re

from kernel_matrix.diagnose import maps
from kernel_matrix.diagnose.data import sections
from kernel_matrix.diagnose.situation import (
    ENOTSUPP,
    Cause,
    Diagnosis,
    Rule,
    Situation,
    advise,
    in_no_module,
    last_line,
    libbpf_line,
)

#: libbpf.c, bpf_program__record_reloc(): maps in sections of their own, such as maps/NAME
_OWN_SECTION = re.compile(r"bad (?:data )?(?:map )?relo against '[^']+' in section '\.?maps")
#: what a libbpf extern of each kind is called
_EXTERNS = {"func": "kfunc", "var": "variable"}
_KSYM = re.compile(r"extern \((?P<kind>func|var) ksym\) '(?P<name>[^']+)': (?P<why>.+)")
#: check_pseudo_btf_id(): the types have the variable, the list of symbols has not (CONFIG_KALLSYMS_ALL)
_NO_ADDRESS = re.compile(r"failed to find the address for kernel symbol '(?P<name>[^']+)'")
_UNRESOLVED = re.compile(r"extern '(?P<name>[^']+)' \(strong\): not resolved")
_NO_TYPE = re.compile(r"missing BPF prog type, check ELF section name '(?P<section>[^']+)'")
#: libbpf.c, bpf_map__init_kern_struct_ops() and find_struct_ops_kern_types(); init_prog_array_slots()
_NO_STRUCT = re.compile(r"struct_ops init_kern: struct (?:bpf_struct_ops_)?(?P<name>\w+) is not found in kernel BTF")
_NO_MEMBER = re.compile(
    r"struct_ops init_kern (?P<map>\S+): Cannot find (?:the )?(?:kernel )?member (?P<member>\w+) in kernel BTF"
)
_NOT_REPLACED = re.compile(r"(?P<name>\S+) is not found in prog's BTF")
_SLOT = re.compile(r"map '(?P<map>[^']+)': failed to initialize slot \[(?P<slot>\d+)\] to prog '(?P<program>[^']+)'")
_CONFIG = re.compile(r"failed to open (?:and read )?system Kconfig")


def _legacy(at: Situation) -> Diagnosis | None:
    if at.stage != "open" or not ("legacy map definitions" in at.log or _OWN_SECTION.search(at.log)):
        return None
    return advise(
        Cause.LIBBPF,
        'its maps are declared as before BTF (SEC("maps")), which libbpf refuses since 1.0',
        "declare them in .maps, or try the object with its own loader (the command run)",
    )


#: libbpf.c, bpf_object__add_programs()
_STATIC = re.compile(r"sec '(?P<section>[^']+)': program '(?P<name>[^']+)' is static")


def _static(at: Situation) -> Diagnosis | None:
    if at.stage != "open" or not (match := _STATIC.search(at.log)):
        return None
    return advise(
        Cause.LIBBPF,
        f"the program {match['name']} ({match['section']}) is static, and the whole object is refused",
        "declare it without static",
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


def _address(at: Situation) -> Diagnosis | None:
    if at.stage != "load" or not (match := _NO_ADDRESS.search(at.log)):
        return None
    return advise(
        Cause.SYMBOL,
        f"the kernel's list of symbols has no variable {match['name']}, whose type its BTF has",
        "use a kernel with CONFIG_KALLSYMS_ALL",
    )


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
        f"the kernel offers no {what} {name} to BPF programs{in_no_module(at, name)}{near}",
        "declare it __weak and ask first (bpf_ksym_exists): one strong extern refuses every program of the object",
    )


def _struct(at: Situation) -> Diagnosis | None:
    """Explain a struct of functions (struct_ops) that the kernel lacks, or has otherwise."""
    if match := _NO_STRUCT.search(at.log):
        return advise(
            Cause.NOT_SUPPORTED,
            f"this kernel has no struct {match['name']} that programs can implement (struct_ops)",
            "use a kernel that has it, built with the option, or with the module loaded, that brings it",
        )
    if match := _NO_MEMBER.search(at.log):
        return advise(
            Cause.SYMBOL,
            f"the kernel's struct has no member {match['member']}, which {match['map']} sets",
            "leave it 0, for which libbpf takes it away, or declare a flavour of the struct (NAME___suffix)",
        )
    if at.stage == "attach" and at.kind == "struct_ops" and at.errno == errno.EINVAL:
        return advise(
            Cause.STRUCT,
            f"the kernel does not take the struct {at.target}: a member that it demands is missing, or has a value"
            " that it refuses",
            "compare it with what init_member() and validate() of that struct check; the kernel's log may say it",
        )
    return None


def _replaced(at: Situation) -> Diagnosis | None:
    """Explain a freplace program whose function the other program does not have: find_prog_btf_id()."""
    if at.stage != "load" or not (match := _NOT_REPLACED.search(at.log)):
        return None
    return advise(
        Cause.SYMBOL,
        f"the program that it replaces a function of has no function {match['name']}",
        "name a global function of that program (not static): only these can be replaced",
    )


def _table(at: Situation) -> Diagnosis | None:
    """Explain a slot of a table of programs: bpf_prog_map_compatible() compares each with the first one."""
    if at.stage != "load" or not (match := _SLOT.search(at.log)):
        return None
    return advise(
        Cause.TABLE,
        f"{match['program']} does not fit the table of programs {match['map']} (slot {match['slot']}): all programs of"
        " a table are of one type, and take frames in fragments (xdp.frags) all or none",
        "use a table for each type",
    )


#: include/linux/bpf_types.h: types of programs that only a kernel with this option has
_BUILT_WITH = {
    **dict.fromkeys(("cgroup_device", "cgroup_sysctl", "cgroup_sockopt"), "CONFIG_CGROUP_BPF"),
    **dict.fromkeys(("kprobe", "tracepoint", "perf_event", "raw_tracepoint", "tracing"), "CONFIG_BPF_EVENTS"),
    **dict.fromkeys(("struct_ops", "ext"), "CONFIG_BPF_JIT"),
    "lirc_mode2": "CONFIG_BPF_LIRC_MODE2",
    "lsm": "CONFIG_BPF_LSM",
    "netfilter": "CONFIG_NETFILTER_BPF_LINK",
}


def _before_the_verifier(at: Situation) -> Diagnosis | None:
    """Explain a program that is refused without a word of the verifier: its type, its flags, or libbpf itself."""
    if at.stage != "load" or at.errno not in {errno.EINVAL, errno.EOPNOTSUPP, ENOTSUPP} or last_line(at.log):
        return None
    if at.kind and f"BPF_PROG_TYPE_{at.kind.upper()}" in at.absent:
        unset = at.unset(_BUILT_WITH.get(at.kind, ""))
        return advise(
            Cause.NOT_SUPPORTED,
            f"this kernel does not know programs of type {at.kind}{unset}",
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
EXPLICIT: tuple[Rule, ...] = (
    _legacy,
    _static,
    _section,
    _old_libbpf,
    _extern,
    _address,
    maps.rule,
    maps.pinned,
    _struct,
    _replaced,
    _table,
)
#: conclusions from an errno
CONCLUDED: tuple[Rule, ...] = (_before_the_verifier, _record)
