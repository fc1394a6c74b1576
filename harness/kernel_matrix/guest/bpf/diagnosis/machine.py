"""Read from the running machine the facts that `kernel_matrix.diagnose` needs. Runs on any Linux."""

from __future__ import annotations

import errno
import gzip
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from kernel_matrix.arch import CURRENT
from kernel_matrix.diagnose import Diagnosis, Situation, diagnose, maps
from kernel_matrix.diagnose.situation import CALLBACKS, ENOTSUPP, last_line
from kernel_matrix.guest.bpf import kernel_modules
from kernel_matrix.guest.bpf.diagnosis import access, kernel_names
from kernel_matrix.guest.bpf.diagnosis.attachments import attachment
from kernel_matrix.guest.bpf.library import libbpf, types_of_section
from kernel_matrix.guest.bpf.step_error import StepError

_SYSCTLS = ("kernel.unprivileged_bpf_disabled", "kernel.perf_event_paranoid", "kernel.kptr_restrict")
_TRACEABLE = Path("/sys/kernel/tracing/available_filter_functions")
_SECURITY = Path("/sys/kernel/security")
#: what libbpf and the verifier say of a function that they do not find
_MISSING = re.compile(r"failed to find kernel BTF type ID of '([^']+)'|The address of function (\S+) cannot be found")
#: functions of a kernel that charges BPF's memory to RLIMIT_MEMLOCK: kernel/bpf/syscall.c, until 5.11
_CHARGING = ("bpf_map_charge_init", "bpf_map_init_memlock")


def explain(error: StepError, *, to: str = "") -> Diagnosis:
    """Diagnose why this machine refused a step of this process or of a child.

    ``to``: where the same process will attach the program, named as in `StepError.what`; empty: unknown.
    """
    return diagnose(situation(error, to=to))


def refused_steps(error: BaseException) -> Iterator[StepError]:
    """Yield the StepError behind an exception, if there is one: the exception itself or one of its causes."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, StepError):
            yield seen
            return
        seen = seen.__cause__


def situation(error: StepError, *, to: str = "") -> Situation:
    """Combine the facts of a failed step with the current state of this machine."""
    credentials, attaching = error.credentials.resolved(), error.stage in {"attach", "detach"}
    where = attachment(error.what if attaching else to)
    stage, target = error.stage, where.target if attaching else error.what
    if stage == "load" and error.map is None and re.search(r"map '[^']+': failed to create", error.log):
        # libbpf creates maps while it loads, and does not report the type of the map
        stage, target = "map_create", ""
    missing = _MISSING.search(error.log)
    # reading all symbols takes a while: they are read only when a name is missing, or memory may be charged
    probed = target.partition("+")[0] if where.hook == "kprobe" and error.errno == errno.ENOENT else ""
    searched = missing[1] or missing[2] if missing else probed
    return Situation(
        stage=stage,
        errno=error.errno or 0,
        kind=error.kind or where.kind,
        hook=where.hook,
        path=where.path,
        target=target,
        log=error.log,
        uid=credentials.uid,
        effective=credentials.effective,
        in_user_namespace=bool(credentials.in_user_namespace),
        token=error.token,
        denied=access.denied(stage, target, credentials),
        memlock=credentials.memlock,
        charges_memlock=_may_be_memlock(error) and any(f" {name}\n" in _symbols() for name in _CHARGING),
        closes_all=error.errno == errno.EPERM and not credentials.has_bpf and access.closes_all(),
        sysctls=dict(_sysctls()),
        mounts=_mounts(),
        config=_config(),
        lsms=active_lsms(),
        lockdown=_lockdown(),
        btf=Path("/sys/kernel/btf/vmlinux").exists(),
        symbols=_similar_symbols(searched) if searched else (),
        traceable=_traceable(error),
        arguments=_arguments(error),
        near=kernel_names.near(stage, where.hook, target, error),
        absent=kernel_names.absent(_names(error)) | _not_built(error),
        in_no_module=kernel_modules.lacking(),
        map=error.map,
        section=error.section,
        record=kernel_names.record_size(target) if where.hook == "tracepoint" else None,
    )


def _traceable(error: StepError) -> bool | None:
    """Whether ftrace lists the function of a section whose attachment found something else there; None: not asked."""
    name = error.section.partition("/")[2]
    if error.stage != "attach" or error.errno != errno.EBUSY or not name:
        return None
    try:
        lines = _TRACEABLE.read_text(errors="replace").splitlines()
    except (FileNotFoundError, PermissionError):
        return None
    # of a module: with its name behind
    return any(line.partition(" ")[0] == name for line in lines)


def _arguments(error: StepError) -> int | None:
    """Return how many arguments the function of a section has whose trampoline is not made; None: not asked."""
    name = error.section.partition("/")[2]
    return kernel_names.arguments(name) if error.stage == "attach" and error.errno == ENOTSUPP and name else None


def _names(error: StepError) -> Iterator[str]:
    """Yield the names in the kernel's BTF that would show that it knows what a step asks for."""
    if error.stage == "map_create" and error.map is not None:
        yield f"BPF_MAP_TYPE_{error.map.type.upper()}"
        yield from maps.flags(error.map.flags)
    if error.stage in {"load", "attach"} and error.attach_type:
        yield f"BPF_{error.attach_type.upper()}"
    if error.stage == "load" and error.kind:
        yield f"BPF_PROG_TYPE_{error.kind.upper()}"
        yield CALLBACKS
        if ".frags" in error.section:
            yield "xdp_has_frags"
    if error.stage == "attach" and error.what.startswith(("uprobe.multi ", "uretprobe.multi ")):
        yield "BPF_TRACE_UPROBE_MULTI"
    if error.stage == "attach" and (typed := re.fullmatch(r"(\w+) link|((?:cgroup|sk|lsm)_\w+)", error.what)):
        yield f"BPF_{(typed[1] or typed[2]).upper()}"


#: libbpf_probes.c, probe_prog_load(): types that are known by a complaint
_OF_FUNCTIONS = frozenset({"tracing", "lsm", "ext", "struct_ops"})


def _not_built(error: StepError) -> frozenset[str]:
    """Return the name of a program's type if the kernel refuses every program of it, though its BTF may have the type.

    Asked only where a program was refused before it was verified (find_prog_type() of kernel/bpf/syscall.c), of libbpf,
    which tries a program that does nothing. Not of types that are attached to a function of the kernel: of those libbpf
    compares the verifier's words, which kernels change.
    """
    silent = error.stage == "load" and error.errno == errno.EINVAL and not last_line(error.log)
    if not silent or error.kind in _OF_FUNCTIONS or not error.section or not error.credentials.has_bpf:
        return frozenset()
    types = types_of_section(error.section)
    if types is None or not error.kind or libbpf().libbpf_probe_bpf_prog_type(types[0], None) != 0:
        return frozenset()
    return frozenset({f"BPF_PROG_TYPE_{error.kind.upper()}"})


def _may_be_memlock(error: StepError) -> bool:
    """Whether RLIMIT_MEMLOCK could be the reason: EPERM under a limit, while a map or program is created."""
    return (
        error.errno == errno.EPERM and error.credentials.memlock is not None and error.stage in {"map_create", "load"}
    )


def active_lsms() -> tuple[str, ...] | None:
    """Return the security modules that are active, None when securityfs is not mounted."""
    try:
        return tuple((_SECURITY / "lsm").read_text().strip().split(","))
    except FileNotFoundError:
        return None


def _lockdown() -> str:
    """Return the level in brackets, such as ``[none] integrity confidentiality``; "none" without that module."""
    try:
        level = re.search(r"\[(\w+)\]", (_SECURITY / "lockdown").read_text())
    except FileNotFoundError:
        return "none"
    return level[1] if level else "none"


def _sysctls() -> Iterator[tuple[str, int]]:
    for name in _SYSCTLS:
        path = Path("/proc/sys", *name.split("."))
        if path.exists():
            yield name, int(path.read_text())


def _mounts() -> dict[str, str]:
    lines = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return {fields[1]: fields[2] for fields in lines}


def _config() -> dict[str, str]:
    """Return the kernel's configuration where it, or the distribution, keeps it; empty otherwise."""
    for path in (Path("/proc/config.gz"), Path(f"/boot/config-{os.uname().release}")):
        try:
            return _options(path)
        except (FileNotFoundError, PermissionError):  # some distributions let only root read it
            continue
    return {}


@cache
def _options(path: Path) -> dict[str, str]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    unset = dict.fromkeys(re.findall(r"^# (CONFIG_\w+) is not set$", text, re.MULTILINE), "n")
    return unset | dict(re.findall(r"^(CONFIG_\w+)=(.*)$", text, re.MULTILINE))


#: the list of symbols for what is loaded: under emulation it takes a second to read
_read_symbols: dict[str, str] = {}


def _symbols() -> str:
    """Return the list of symbols of the kernel and its modules; their addresses need no privilege here."""
    modules = Path("/proc/modules")
    loaded = modules.read_text() if modules.exists() else ""
    if loaded not in _read_symbols:
        _read_symbols.clear()
        _read_symbols[loaded] = "\n" + Path("/proc/kallsyms").read_text(errors="replace")
    return _read_symbols[loaded]


def _similar_symbols(name: str) -> tuple[str, ...]:
    """Return the functions that this name may mean: itself, entries of system calls, compiled copies, inner functions.

    The shortest comes first. A copy is ``NAME.isra.0`` or ``NAME.part.0``: the compiler changed or split the function.
    """
    text, similar = _symbols(), set()
    for match in re.finditer(re.escape(name), text):
        # address, type, symbol, and of a module its name
        line = text[text.rfind("\n", 0, match.start()) + 1 : match.end() + _LONGEST].partition("\n")[0]
        _, kind, symbol, *module = line.split(None, 3)
        if kind in _FUNCTIONS and module != [_BPF] and _is_like(symbol, name):
            similar.add(symbol)
    names = [symbol for symbol in similar if not symbol.startswith(("__pfx_", "__SCT__", "__ksym"))]
    # the entries for 64-bit programs come before those for 32-bit ones
    return tuple(sorted(names, key=lambda symbol: (not symbol.startswith(CURRENT.syscall_prefix), len(symbol), symbol)))


def _is_like(symbol: str, name: str) -> bool:
    """Whether a function is what someone means by this name.

    Besides copies: ``NAME_noprof``, which a macro NAME calls since 6.10 (CONFIG_MEM_ALLOC_PROFILING), and names that
    begin with underscores, ``do_`` or, of a system call, with what its architecture adds.
    """
    if symbol == f"{name}_noprof" or symbol.startswith(f"{name}."):
        return True
    before = symbol.removesuffix(name)
    if before == symbol != name:
        return False
    return bool(_BEFORE_CALL.fullmatch(before) if name.startswith("sys_") else _BEFORE.fullmatch(before))


#: nm(1): of functions; what is found by other names is data
_FUNCTIONS = frozenset("tTwWiI")
#: what kallsyms has for programs of BPF: in the place of a module's name
_BPF = "[bpf]"
_BEFORE = re.compile(r"_*(?:do_|(?:\w*_)?sys_)?")
_BEFORE_CALL = re.compile(r"\w*")
#: linux/kallsyms.h, KSYM_NAME_LEN
_LONGEST = 512
