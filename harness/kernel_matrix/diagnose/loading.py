"""Rules about the object, the kernel's abilities and the verifier."""

from __future__ import annotations

import errno
import re

from kernel_matrix.diagnose import maps
from kernel_matrix.diagnose.data import helpers, verifier_lines
from kernel_matrix.diagnose.remedy import Remedy
from kernel_matrix.diagnose.situation import (
    CALLBACKS,
    ENDIAN,
    ENOTSUPP,
    FORMAT,
    LIBELF,
    Cause,
    Diagnosis,
    Rule,
    Situation,
    advise,
    in_no_module,
    last_line,
    libbpf_line,
    suggestion,
    symbol,
)

#: what a section names that is no function: libbpf looks a type up for it
_HOOKS = {"iter": "iterator over", "lsm": "LSM hook", "lsm_cgroup": "LSM hook", "tp_btf": "tracepoint"}


def _object(at: Situation) -> Diagnosis | None:
    if at.errno in {LIBELF, FORMAT}:
        return advise(Cause.OBJECT, "the file is not a BPF object", "compile it with clang -target bpf -g -c")
    if at.errno == ENDIAN:
        return advise(
            Cause.OBJECT,
            "the object is of the other byte order",
            "compile it with -target bpf on, or for, this machine",
        )
    if at.stage == "open" and "BTF is required, but is missing" in at.log:
        return advise(Cause.NO_BTF, "the object has no BTF, which describes its maps", "compile it with clang -g")
    if at.stage == "open" and at.errno == errno.ENOENT and ("failed to open" in at.log or not at.log):
        return advise(Cause.OBJECT, f"there is no file {at.target}", "build it, or name the right one")
    return None


def _no_bpf(at: Situation) -> Diagnosis | None:
    if at.errno == errno.ENOSYS or at.config.get("CONFIG_BPF_SYSCALL") == "n":
        return advise(
            Cause.NOT_SUPPORTED,
            "there is no system call bpf() here",
            "use a kernel with CONFIG_BPF_SYSCALL, and a sandbox (seccomp) that lets bpf() through",
        )
    return None


#: bpf_check_attach_target(): the types have the function, the symbols have not: the compiler changed it
_NO_ADDRESS = re.compile(r"The address of function (?P<name>\S+) cannot be found")


def _no_address(at: Situation) -> Diagnosis | None:
    match = _NO_ADDRESS.search(at.log) if at.stage == "load" else None
    return symbol(at, match["name"]) if match else None


def _btf(at: Situation) -> Diagnosis | None:
    if at.stage != "load" or at.errno != errno.ESRCH:
        return None
    if not at.btf:
        return advise(
            Cause.NO_BTF,
            "the kernel shows no BTF (/sys/kernel/btf/vmlinux), which CO-RE, fentry and LSM programs need",
            "use a kernel with CONFIG_DEBUG_INFO_BTF, or bring its BTF along",
        )
    missing = re.search(r"failed to find kernel BTF type ID of '([^']+)'", at.log)
    if missing and (what := _HOOKS.get(at.section.partition("/")[0].partition(".")[0])):
        near = f"; near: {', '.join(at.near[:3])}" if at.near else ""
        return advise(
            Cause.SYMBOL,
            f"this kernel has no {what} {missing[1]}{in_no_module(at, missing[1])}{near}",
            "use another one, or a kernel that has this one",
        )
    if missing:
        return symbol(at, missing[1])
    return None


#: libbpf's fixup_log_failed_core_relo(): kind, number of the type, the struct and field as the object names them
_RELOCATION = re.compile(
    r"failed to resolve CO-RE relocation (?:<\w+> \[\d+\] )?(?P<what>.+?)(?: \(\d+:.*\))?$", re.MULTILINE
)
#: the suffix of a declaration that stands for another kernel's
_FLAVOUR = re.compile(r"___\w+")


def _invalid_core(at: Situation) -> Diagnosis | None:
    if at.stage != "load" or "<invalid CO-RE relocation>" not in at.log:
        return None
    match = _RELOCATION.search(at.log)
    declared = match["what"].strip() if match else "a field"
    what = _FLAVOUR.sub("", declared)
    by = f" (declared as {declared})" if what != declared else ""
    root = re.search(r"(?:struct|union|enum|typedef) (\w+)", what)
    nowhere = in_no_module(at, root[1]) if root else ""
    near = f"; near: {', '.join(at.near[:3])}" if at.near else ""
    return advise(
        Cause.SYMBOL,
        f"this kernel has not what CO-RE looks for: {what}{by}{nowhere}{near}",
        "ask with bpf_core_field_exists() or bpf_core_type_exists() first, and read what the kernel has instead",
    )


#: what E2BIG is about when it is not the number of instructions
_OTHER_LIMIT = re.compile(r"frames is too deep|too many [\w ]+")


def _too_large(at: Situation) -> Diagnosis | None:
    if at.stage != "load":
        return None
    line = last_line(at.log)
    if at.errno == errno.E2BIG and not at.has("CAP_BPF", "CAP_SYS_ADMIN") and "too complex" not in line:
        cure, alternative = Remedy(capabilities=("CAP_BPF",)), Remedy("make it smaller")
        return Diagnosis(Cause.TOO_LARGE, "more than 4096 instructions without CAP_BPF", cure, alternative)
    if "jumps is too complex" in line:
        # push_stack(): BPF_COMPLEXITY_LIMIT_JMP_SEQ; the errno differs between kernels (E2BIG, EFAULT, ENOMEM)
        return advise(
            Cause.TOO_LARGE,
            "the verifier keeps no more than 8192 branches that it has still to follow",
            "have fewer branches in a loop, or let loops be bpf_loop() or global functions",
        )
    if at.errno == errno.E2BIG:
        return _limit(line)
    if at.errno == errno.ENOSPC:
        return advise(
            Cause.TOO_LARGE, "the verifier's log does not fit its buffer", "offer a larger log buffer, or none"
        )
    return None


def _limit(line: str) -> Diagnosis:
    if other := _OTHER_LIMIT.search(line):
        # check_max_stack_depth_subprog(), add_subprog(), add_kfunc_call(), add_used_map()
        return advise(Cause.TOO_LARGE, line, verifier_lines.remedy(line) or f"have fewer of them: {other[0]}")
    return advise(
        Cause.TOO_LARGE,
        "the verifier goes through no more than 1,000,000 instructions",
        "split it with tail calls, or let loops be bpf_loop() or global functions",
    )


def _verifier(at: Situation) -> Diagnosis | None:
    if (
        at.stage != "load"
        or at.errno not in {errno.EACCES, errno.EINVAL, errno.EPERM, errno.EFAULT, errno.EOPNOTSUPP, ENOTSUPP}
        or not (line := last_line(at.log))
    ):
        return None
    return _of_a_call(at, line) or advise(
        Cause.VERIFIER, line, suggestion(at.log) or verifier_lines.remedy(line) or _READ_THE_LOG
    )


_READ_THE_LOG = "change the program: the log says which instruction it is about"
#: check_helper_call(): a number behind the last helper's; one that this type of programs may not call
_NO_HELPER = re.compile(r"invalid func \S+#(?P<number>\d+)")
_NOT_FOR_TYPE = re.compile(r"(?:unknown func|cannot use helper) (?P<helper>\w+)#")
#: check_kfunc_call(), fetch_kfunc_meta()
_NO_KFUNC_FOR_TYPE = re.compile(r"calling kernel function (?P<name>\w+) is not allowed")
#: libbpf's fixup_log_missing_kfunc_call() and fixup_log_missing_map_load(): what is absent is used
_NO_KFUNC = re.compile(r"kfunc '(?P<name>[^']+)' is referenced but wasn't resolved")
_NO_MAP = re.compile(r"BPF map '(?P<name>[^']+)' is referenced but wasn't created")
#: check_map_func_compatibility()
_NOT_FOR_MAP = re.compile(r"cannot pass map_type (?P<number>\d+) into func (?P<helper>\w+)#")
#: instructions of another set: the verifier calls fields reserved that a later kernel gives a meaning
_NO_INSTRUCTION = re.compile(r"uses reserved fields|unknown opcode|BPF_ATOMIC uses invalid|invalid atomic")


def _of_a_call(at: Situation, line: str) -> Diagnosis | None:
    """Explain a call or an instruction that this kernel does not have, or not for this program."""
    if "GPL-restricted" in line or "GPL compatible license" in line:
        return advise(Cause.VERIFIER, f"its licence is not GPL compatible: {line}", 'SEC("license") = "GPL"')
    if match := _NO_KFUNC.search(at.log):
        return advise(
            Cause.SYMBOL,
            f"it calls the kfunc {match['name']}, which this kernel has not, without asking first",
            "ask with bpf_ksym_exists() before the call",
        )
    if match := _NO_MAP.search(at.log):
        return advise(Cause.UNDECLARED, f"it uses map {match['name']}, which is not made", "let the map be made")
    if "number of funcs in func_info doesn't match" in line and CALLBACKS in at.absent:
        # check_btf_func(): a function whose address alone is used is none there
        return advise(
            Cause.NOT_SUPPORTED,
            "this kernel has no functions that helpers call back (since 5.13), and the program passes one",
            "leave the program out there (set_autoload): code that is never reached counts, too",
        )
    if _NO_INSTRUCTION.search(line):
        return advise(
            Cause.NOT_SUPPORTED,
            f"this kernel does not know an instruction of the program: {line}",
            "compile it for an older instruction set (clang -mcpu=v2 or v3); atomic operations that return a value are"
            " of 5.12",
        )
    return _helper(at, line)


#: helpers that only a kernel with this option has; kprobe_prog_func_proto() of kernel/trace/bpf_trace.c
_OPTIONS = {"bpf_override_return": "CONFIG_BPF_KPROBE_OVERRIDE"}


def _helper(at: Situation, line: str) -> Diagnosis | None:
    if match := _NO_HELPER.search(line):
        name = helpers.name(int(match["number"]))
        return advise(
            Cause.NOT_SUPPORTED,
            f"this kernel has no helper {name}",
            "ask with bpf_core_enum_value_exists(enum bpf_func_id, ...) before the call, or use a kernel that has it",
        )
    if match := _NO_KFUNC_FOR_TYPE.search(line):
        return advise(
            Cause.NOT_SUPPORTED,
            f"programs of type {at.kind or 'this'} may not call the kfunc {match['name']} on this kernel",
            "call it in a program of another type, or use a kernel that lets them",
        )
    if match := _NOT_FOR_MAP.search(line):
        return advise(
            Cause.VERIFIER,
            f"the helper {match['helper']} takes no map of type {maps.type_name(int(match['number']))} here: {line}",
            "use the helpers and the program types that are for maps of this type",
        )
    if match := _NOT_FOR_TYPE.search(line):
        unset = at.unset(_OPTIONS.get(match["helper"], ""))
        return advise(
            Cause.NOT_SUPPORTED,
            f"programs of type {at.kind or 'this'} may not call the helper {match['helper']} on this kernel{unset}",
            "use another helper, or a kernel that lets them",
        )
    return None


def _no_such_type(at: Situation) -> Diagnosis | None:
    """Detect an unknown map or program type: map_create() and find_prog_type() return EINVAL without a log."""
    if at.errno == errno.EINVAL and at.stage == "map_create":
        what = f"a map of type {at.target}" if at.target else "such a map"
        return advise(
            Cause.NOT_SUPPORTED,
            f"this kernel does not make {what} with these sizes and flags",
            "use another map type, or a kernel that has it",
        )
    unknown = at.errno in {errno.EINVAL, errno.EOPNOTSUPP, ENOTSUPP} and at.stage == "load"
    if unknown and not last_line(at.log) and not libbpf_line(at.log):
        return advise(
            Cause.NOT_SUPPORTED,
            f"this kernel does not know programs of type {at.kind or 'this'}, or their flags",
            "use another program type, or a kernel that has it",
        )
    return None


#: rules for explicit messages and errnos
EXPLICIT: tuple[Rule, ...] = (_object, _no_bpf, _no_address, _btf, _invalid_core)
#: rules that apply only if the process has permission
CONCLUDED: tuple[Rule, ...] = (_too_large, _verifier, _no_such_type)
