"""From a situation to a diagnosis: one case for each cause, and what holds for all situations."""

from __future__ import annotations

import errno
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.diagnose import Cause, Diagnosis, Remedy, Situation, diagnose, last_line
from kernel_matrix.diagnose.situation import CAPABILITIES, ENOTSUPP, MapFacts, needed
from tests.test_diagnose_objects import OBJECT_CASES

_ALL = sum(1 << number for number in CAPABILITIES.values())


def _without(*names: str) -> int:
    return _ALL & ~sum(1 << CAPABILITIES[name] for name in names)


_LOAD = Situation("load", errno.EPERM, kind="kprobe", effective=_ALL)
_GENERIC = Situation("attach", errno.EINVAL, kind="xdp", hook="XDP", path="netlink", effective=_ALL)
_KPROBE = Situation("attach", errno.ENOENT, kind="kprobe", hook="kprobe", target="sys_execve", effective=_ALL)
_TRACEPOINT = Situation("attach", errno.ENOENT, kind="tracepoint", hook="tracepoint", target="a:b", effective=_ALL)

_CASES: list[tuple[Situation, Cause, str]] = [
    (replace(_LOAD, effective=0), Cause.PERMISSION, "CAP_BPF and CAP_PERFMON missing"),
    (replace(_LOAD, effective=_without("CAP_BPF", "CAP_SYS_ADMIN")), Cause.PERMISSION, "CAP_BPF missing"),
    (
        replace(_LOAD, kind="xdp", effective=_without("CAP_NET_ADMIN", "CAP_SYS_ADMIN")),
        Cause.PERMISSION,
        "CAP_NET_ADMIN missing",
    ),
    (
        replace(_LOAD, kind="socket_filter", effective=0, sysctls={"kernel.unprivileged_bpf_disabled": 2}),
        Cause.PERMISSION,
        "or set kernel.unprivileged_bpf_disabled to 0",
    ),
    (
        replace(_LOAD, errno=errno.EACCES, log="1: R1 pointer arithmetic prohibited\n", effective=1 << 39),
        Cause.PERMISSION,
        "CAP_PERFMON missing",
    ),
    (
        replace(_KPROBE, errno=errno.EACCES, effective=1 << 38, sysctls={"kernel.perf_event_paranoid": 3}),
        Cause.PERMISSION,
        "kernel.perf_event_paranoid is 3",
    ),
    (replace(_KPROBE, errno=errno.EACCES, effective=1 << 39), Cause.PERMISSION, "CAP_PERFMON missing"),
    (
        replace(_TRACEPOINT, errno=errno.EACCES, uid=1000, effective=1 << 38),
        Cause.PERMISSION,
        "CAP_DAC_READ_SEARCH missing",
    ),
    (Situation("attach", errno.EPERM, hook="XDP", kind="xdp"), Cause.PERMISSION, "CAP_NET_ADMIN missing"),
    (Situation("attach", errno.EPERM, kind="xdp"), Cause.PERMISSION, "CAP_BPF missing"),
    (replace(_LOAD, charges_memlock=True, memlock=65536), Cause.MEMLOCK, "RLIMIT_MEMLOCK, which is 64 KiB"),
    (Situation("map_create", errno.EPERM, effective=0), Cause.PERMISSION, "CAP_BPF missing"),
    (Situation("map_create", errno.EINVAL, target="arena", effective=_ALL), Cause.NOT_SUPPORTED, "of type arena"),
    (Situation("load", errno.ENOSYS), Cause.NOT_SUPPORTED, "no system call bpf()"),
    (replace(_LOAD, errno=errno.EINVAL, kind="netfilter"), Cause.NOT_SUPPORTED, "programs of type netfilter"),
    (
        replace(_LOAD, errno=errno.EINVAL, log="0: (85) call x\nunknown func x#9\n"),
        Cause.NOT_SUPPORTED,
        "may not call the helper x",
    ),
    (replace(_LOAD, errno=errno.E2BIG), Cause.TOO_LARGE, "1,000,000"),
    (replace(_LOAD, errno=errno.E2BIG, effective=0), Cause.TOO_LARGE, "4096"),
    (
        replace(_LOAD, kind="socket_filter", errno=errno.E2BIG, effective=1 << CAPABILITIES["CAP_BPF"]),
        Cause.PERMISSION,
        "CAP_PERFMON missing",
    ),
    (replace(_LOAD, errno=errno.ENOSPC), Cause.TOO_LARGE, "log"),
    (replace(_LOAD, errno=errno.EACCES, log="R2 !read_ok\nprocessed 1 insns\n"), Cause.VERIFIER, "R2 !read_ok"),
    (
        replace(_LOAD, errno=errno.EINVAL, log="cannot call GPL-restricted function from non-GPL compatible program\n"),
        Cause.VERIFIER,
        "licence",
    ),
    (
        replace(_LOAD, errno=errno.EINVAL, log="<invalid CO-RE relocation>\nfailed to resolve CO-RE relocation a.b\n"),
        Cause.SYMBOL,
        "a.b",
    ),
    (replace(_KPROBE, symbols=("__x64_sys_execve",)), Cause.SYMBOL, "it has __x64_sys_execve"),
    (_KPROBE, Cause.SYMBOL, "nor one of a like name"),
    (replace(_KPROBE, symbols=("sys_execve",)), Cause.NOT_SUPPORTED, "no kprobes"),
    (replace(_KPROBE, errno=errno.EINVAL), Cause.ATTACH_TYPE, "blacklist"),
    (replace(_KPROBE, errno=errno.EINVAL, kind="xdp"), Cause.ATTACH_TYPE, "of type xdp cannot be attached to a kprobe"),
    (Situation("attach", errno.EOPNOTSUPP, kind="xdp"), Cause.ATTACH_TYPE, "does not say where"),
    (_TRACEPOINT, Cause.NOT_MOUNTED, "tracefs"),
    (replace(_TRACEPOINT, mounts={"/sys/kernel/tracing": "tracefs"}), Cause.SYMBOL, "no tracepoint a:b"),
    (Situation("pin", errno.EINVAL, effective=_ALL), Cause.NOT_MOUNTED, "bpffs"),
    (Situation("pin", errno.EINVAL, target="/tmp/x", mounts={"/b": "bpf"}), Cause.PIN, "/tmp/x is not on bpffs"),
    (Situation("pin", errno.EEXIST, target="/b/x", mounts={"/b": "bpf"}), Cause.PIN, "there already"),
    (Situation("load", errno.ESRCH, btf=False), Cause.NO_BTF, "/sys/kernel/btf/vmlinux"),
    (
        Situation("open", errno.ENOENT, log="libbpf: BTF is required, but is missing or corrupted.\n"),
        Cause.NO_BTF,
        "the object has no BTF",
    ),
    (Situation("open", 4001), Cause.OBJECT, "not a BPF object"),
    (Situation("load", 4003), Cause.OBJECT, "byte order"),
    (Situation("attach", errno.EBUSY, hook="XDP", kind="xdp", effective=_ALL), Cause.INTERFACE, "another program"),
    (Situation("attach", kind="lsm", lsms=("lockdown", "yama")), Cause.LSM_INACTIVE, "never runs"),
    (replace(_KPROBE, errno=errno.EPERM, lockdown="confidentiality"), Cause.LOCKDOWN, "could show its memory"),
    (replace(_TRACEPOINT, lockdown="confidentiality"), Cause.LOCKDOWN, "could show its memory"),
    (
        replace(_LOAD, errno=errno.EINVAL, log="unknown func bpf_probe_write_user#36\n", lockdown="integrity"),
        Cause.LOCKDOWN,
        "changes a process's memory",
    ),
    (
        replace(_LOAD, errno=errno.EINVAL, log="unknown func bpf_probe_read_kernel#113\n", lockdown="integrity"),
        Cause.NOT_SUPPORTED,
        "may not call the helper bpf_probe_read_kernel",
    ),
    (
        # bpf_base_func_proto(): helpers that read other memory are there for who has CAP_PERFMON
        replace(
            _LOAD,
            errno=errno.EINVAL,
            log="unknown func bpf_probe_read_kernel#113\n",
            kind="sched_cls",
            effective=_without("CAP_PERFMON", "CAP_SYS_ADMIN"),
        ),
        Cause.PERMISSION,
        "CAP_PERFMON",
    ),
    (
        Situation("attach", errno.EINVAL, kind="kprobe", hook="kprobe.multi", effective=_ALL),
        Cause.NOT_SUPPORTED,
        "CONFIG_FPROBE",
    ),
    (Situation("attach", errno.EINVAL, kind="sched_cls", hook="tcx", effective=_ALL), Cause.NOT_SUPPORTED, "no tcx"),
    (
        replace(_TRACEPOINT, errno=errno.EINVAL, path="link"),
        Cause.NOT_SUPPORTED,
        "no links of perf events",
    ),
    (Situation("attach", ENOTSUPP, kind="tracing", effective=_ALL), Cause.NOT_SUPPORTED, "no BPF trampoline"),
    (Situation("token", errno.EOPNOTSUPP, effective=_ALL), Cause.NOT_SUPPORTED, "another user namespace"),
    (Situation("token", errno.EINVAL, effective=_ALL), Cause.NOT_SUPPORTED, "no BPF tokens"),
    (Situation("open", errno.ENOENT, target="x.o"), Cause.OBJECT, "there is no file x.o"),
    (
        replace(_LOAD, errno=errno.ESRCH, log="libbpf: failed to find kernel BTF type ID of 'vfs_reed': -3\n"),
        Cause.SYMBOL,
        "no function vfs_reed",
    ),
    (replace(_KPROBE, config={"CONFIG_KPROBES": "n"}), Cause.NOT_SUPPORTED, "no kprobes"),
    (Situation("pin", errno.EPERM, target="/tmp/y", mounts={"/b": "bpf"}, effective=_ALL), Cause.PIN, "/tmp/y is not"),
    (Situation("map_create", errno.EINVAL, effective=_ALL), Cause.NOT_SUPPORTED, "such a map"),
    (
        replace(_LOAD, errno=errno.EINVAL, log="cannot use helper bpf_x#1\n"),
        Cause.NOT_SUPPORTED,
        "may not call the helper bpf_x",
    ),
    (
        replace(_GENERIC, map=MapFacts("devices", "devmap_hash", 4, 8, 4)),
        Cause.NOT_SUPPORTED,
        "takes no program that uses a devmap_hash whose entries may hold programs: devices",
    ),
    (_GENERIC, Cause.UNKNOWN, "attach answered EINVAL"),
    *[
        (Situation("attach", number, hook="XDP", kind=kind, effective=_ALL), Cause.INTERFACE, why)
        for number, why in (
            (errno.ENODEV, "no such interface"),
            (errno.EEXIST, "in another mode"),
            (errno.EOPNOTSUPP, "the driver has no such mode"),
            (errno.ERANGE, "the MTU is too large"),
        )
        for kind in ("", "xdp")
    ],
    (Situation("update", errno.ENOMEM), Cause.UNKNOWN, "ENOMEM"),
]


@pytest.mark.parametrize(("situation", "cause", "why"), _CASES, ids=[f"{c[1].name} {c[2]}" for c in _CASES])
def test_a_situation_has_a_cause_and_a_remedy(situation: Situation, cause: Cause, why: str) -> None:
    diagnosis = diagnose(situation)
    assert (diagnosis.cause, why in str(diagnosis)) == (cause, True), diagnosis
    assert diagnosis.remedy


def test_every_cause_has_a_case() -> None:
    assert {cause for _, cause, _ in (*_CASES, *OBJECT_CASES)} == set(Cause)


_ERRNOS = {0, *errno.errorcode, ENOTSUPP, 4000, 4001, 4003}
_STAGES = {"open", "map_create", "load", "attach", "detach", "pin", "update", "query", "token", "read"}
#: what is no object, and no bpf() at all, is known before anything else is asked
_NO_OBJECT = {4000, 4001, 4003}
_VERIFIED = {errno.EACCES, errno.EINVAL, errno.EPERM, errno.EFAULT, errno.EOPNOTSUPP, ENOTSUPP}
_REFUSED_TYPE = {errno.EINVAL, errno.EOPNOTSUPP, ENOTSUPP}
#: why, and where that is not enough the case's errno -> the errnos that have this cause; all others have their own only
_ERRNOS_OF: dict[str | tuple[str, int], set[int]] = {
    # __bpf_prog_load() of a loop: EFAULT on 6.17 and 6.18, E2BIG later
    ("CAP_PERFMON missing", errno.E2BIG): {errno.E2BIG, errno.EFAULT},
    # bpf() may be closed as a whole as well (EPERM): CAP_SYS_ADMIN opens both
    "kernel.perf_event_paranoid is 3": {errno.EPERM, errno.EACCES},
    # find_prog_type() and bpf_prog_load_check_attach(), of any type
    "programs of type netfilter": _REFUSED_TYPE,
    "of type xdp cannot be attached to a kprobe": _REFUSED_TYPE,
    # link_create(): EINVAL for an unknown type, EOPNOTSUPP for one that is not built in
    "CONFIG_FPROBE": {errno.EINVAL, errno.EOPNOTSUPP},
    # the verifier's words count, with whatever errno they come
    "may not call the helper x": _VERIFIED,
    "may not call the helper bpf_x": _VERIFIED,
    "may not call the helper bpf_probe_read_kernel": _VERIFIED,
    "R2 !read_ok": _VERIFIED,
    "licence": _VERIFIED,
    "changes a process's memory": _ERRNOS - _NO_OBJECT - {errno.ENOSYS},
    # and libbpf's
    "a.b": _ERRNOS - _NO_OBJECT - {errno.ENOSYS},
    "the object has no BTF": _ERRNOS - _NO_OBJECT,
    "not a BPF object": {4000, 4001},
    # a pin needs bpffs first
    "bpffs": _ERRNOS - _NO_OBJECT - {errno.ENOSYS, errno.EEXIST},
    "/tmp/y is not": {errno.EINVAL, errno.EPERM},
}
#: why -> the stages that have this cause
_STAGES_OF = {
    "RLIMIT_MEMLOCK, which is 64 KiB": {"map_create", "load"},
    "no system call bpf()": _STAGES,
    "not a BPF object": _STAGES,
    "byte order": _STAGES,
    # nothing is refused; but a pin needs bpffs
    "never runs": _STAGES - {"pin"},
}


def _same(one: Situation, other: Situation) -> bool:
    here, there = diagnose(one), diagnose(other)
    return (here.cause, here.why) == (there.cause, there.why)


@pytest.mark.parametrize(("situation", "cause", "why"), _CASES, ids=[f"{c[1].name} {c[2]}" for c in _CASES])
def test_a_cause_is_concluded_from_its_errnos_alone(situation: Situation, cause: Cause, why: str) -> None:
    concluded = {number for number in _ERRNOS if _same(situation, replace(situation, errno=number))}
    assert concluded == _ERRNOS_OF.get((why, situation.errno), _ERRNOS_OF.get(why, {situation.errno}))


@pytest.mark.parametrize(
    ("situation", "why"),
    [(situation, why) for situation, cause, why in _CASES if cause is not Cause.PERMISSION],
)
def test_a_cause_is_concluded_at_its_stages_alone(situation: Situation, why: str) -> None:
    """What is lacking is computed from the stage's needs (tests/test_remedies.py)."""
    concluded = {stage for stage in _STAGES if _same(situation, replace(situation, stage=stage))}
    assert concluded == _STAGES_OF.get(why, {situation.stage})


_SITUATIONS = st.builds(
    Situation,
    stage=st.sampled_from(["open", "map_create", "load", "attach", "detach", "pin", "update", "test_run"]),
    errno=st.one_of(st.just(0), st.sampled_from(sorted(errno.errorcode)), st.integers(500, 4100)),
    kind=st.sampled_from(["", "kprobe", "xdp", "lsm", "tracing", "socket_filter", "cgroup_skb", "tracepoint"]),
    hook=st.sampled_from(["", "kprobe", "uprobe", "tracepoint", "perf_event", "XDP", "tcx"]),
    target=st.text(max_size=8),
    log=st.text(max_size=60),
    path=st.sampled_from(["", "perf", "tracefs", "link", "netlink", "clsact", "prog_attach", "setsockopt"]),
    uid=st.integers(0, 1),
    in_user_namespace=st.booleans(),
    token=st.booleans(),
    denied=st.booleans(),
    closes_all=st.booleans(),
    sysctls=st.fixed_dictionaries(
        {},
        optional={
            "kernel.unprivileged_bpf_disabled": st.integers(0, 2),
            "kernel.perf_event_paranoid": st.integers(-1, 4),
        },
    ),
    effective=st.integers(0, (1 << 41) - 1),
    memlock=st.one_of(st.none(), st.integers(0, 1 << 40)),
    charges_memlock=st.booleans(),
    mounts=st.dictionaries(st.just("/m"), st.sampled_from(["bpf", "tracefs"]), max_size=1),
    lsms=st.one_of(st.none(), st.just(("bpf",)), st.just(("yama",))),
    lockdown=st.sampled_from(["none", "integrity", "confidentiality"]),
    btf=st.booleans(),
    symbols=st.lists(st.text(max_size=5), max_size=3).map(tuple),
)


@given(_SITUATIONS)
def test_every_situation_has_one_cause_and_one_remedy(situation: Situation) -> None:
    """The cause and the remedy are one line each."""
    diagnosis = diagnose(situation)
    assert isinstance(diagnosis, Diagnosis)
    assert diagnosis.why
    assert diagnosis.remedy


@given(_SITUATIONS)
def test_no_capability_is_missing_for_who_has_them_all(situation: Situation) -> None:
    """A user with every capability is never advised that one is missing."""
    diagnosis = diagnose(replace(situation, effective=_ALL, in_user_namespace=False))
    assert diagnosis.cause is not Cause.PERMISSION


@given(_SITUATIONS)
def test_what_is_said_to_be_missing_is_missing_and_is_needed(situation: Situation) -> None:
    diagnosis = diagnose(replace(situation, stage="load", path="", errno=errno.EPERM, lockdown="none"))
    if diagnosis.cause is Cause.PERMISSION:
        assert set(diagnosis.cure.capabilities) <= set(needed(situation.kind))
        inside = situation.in_user_namespace and not situation.token
        assert inside or not any(situation.has(name, "CAP_SYS_ADMIN") for name in diagnosis.cure.capabilities)


def _given(situation: Situation, remedy: Remedy) -> Situation:
    """Apply a remedy."""
    more = sum(1 << CAPABILITIES[name] for name in remedy.capabilities)
    after = replace(situation, effective=situation.effective | more, sysctls={**situation.sysctls, **remedy.sysctls})
    return replace(after, in_user_namespace=False) if remedy.outside else after


@given(_SITUATIONS)
def test_a_remedy_applied_is_not_said_again(situation: Situation) -> None:
    diagnosis = diagnose(situation)
    for remedy in filter(None, [diagnosis.cure, diagnosis.other]):
        if remedy.capabilities or remedy.sysctls:
            again = diagnose(_given(situation, remedy))
            assert set(remedy.capabilities).isdisjoint(again.cure.capabilities)
            assert set(remedy.sysctls).isdisjoint(again.cure.sysctls)


@given(_SITUATIONS)
def test_the_text_of_a_remedy_names_what_its_value_does(situation: Situation) -> None:
    diagnosis = diagnose(situation)
    for remedy in filter(None, [diagnosis.cure, diagnosis.other]):
        if not remedy.advice:
            text = str(remedy)
            assert re.findall(r"CAP_\w+", text) == [*remedy.capabilities, *remedy.verifier]
            assert {name: int(value) for name, value in re.findall(r"set ([\w.]+) to (-?\d+)", text)} == remedy.sysctls
            assert text in diagnosis.remedy


@pytest.mark.parametrize("disabled", [0, 1, 2])
def test_a_sysctl_that_is_final_is_no_remedy(disabled: int) -> None:
    """bpf_unpriv_handler() lets go of a 2, and never of a 1; at 0 it is not in the way."""
    sysctls = {"kernel.unprivileged_bpf_disabled": disabled}
    diagnosis = diagnose(replace(_LOAD, kind="socket_filter", effective=0, sysctls=sysctls))
    assert diagnosis.cure.capabilities == ("CAP_BPF",)
    assert (diagnosis.other is not None) == (disabled == 2)


def test_the_last_line_is_what_the_verifier_found() -> None:
    log = (
        "libbpf: -- BEGIN PROG LOAD LOG --\n0: (bf) r0 = r2\nR2 !read_ok\nprocessed 1 insns\n-- END PROG LOAD LOG --\n"
    )
    assert last_line(log) == "R2 !read_ok"
    assert not last_line("")


def test_what_the_verifier_suggests_is_the_remedy() -> None:
    report = "Verification failed: X\n\nReason:\n  y\n\nSuggestion:\n  Initialize R2\n  first.\n\nprocessed 1 insns\n"
    log = f"0: (bf) r0 = r2\nR2 !read_ok\n\n{report}"
    diagnosis = diagnose(replace(_LOAD, errno=errno.EACCES, log=log))
    assert (diagnosis.why, diagnosis.remedy) == ("R2 !read_ok", "Initialize R2 first.")


_SOCKET_FILTER = Situation("load", kind="socket_filter", sysctls={"kernel.unprivileged_bpf_disabled": 0})


@pytest.mark.parametrize(
    ("number", "log", "effective", "why"),
    [
        # bpf_check() of who has neither capability: check_subprogs() answers EPERM
        (errno.EPERM, "", 0, "CAP_BPF missing, without which the verifier takes only what calls no function"),
        (errno.EPERM, "function calls are allowed for root only\n", 0, "calls no function of its own"),
        (errno.EPERM, "something else\n", 0, None),
        (errno.EPERM, "", 1 << 39, None),
        (errno.EACCES, "", 0, "CAP_PERFMON missing, without which the verifier takes only what computes nothing"),
        (errno.EACCES, "R1 leaks addr\n", 1 << 39, "computes nothing from pointers"),
        (errno.EACCES, "R2 !read_ok\n", 0, "R2 !read_ok"),
        (errno.EACCES, "R1 leaks addr\n", 1 << 38, "R1 leaks addr"),
        # CAP_BPF first, which lets loops be looked at; without CAP_PERFMON they have no end in speculation
        (
            errno.EINVAL,
            "back-edge from insn 3 to 1\n",
            0,
            "CAP_BPF missing, without which the verifier takes only what",
        ),
        (errno.EINVAL, "infinite loop detected at insn 1\n", 1 << 39, "CAP_PERFMON missing, without which"),
        (errno.EINVAL, "", 0, "has no loop"),
        (errno.EINVAL, "R2 !read_ok\n", 0, "R2 !read_ok"),
        (errno.EINVAL, "back-edge from insn 3 to 1\n", 3 << 38, "back-edge from insn 3 to 1"),
        (errno.EFAULT, "", 1 << 39, "has no loop, or is small"),
        (errno.EFAULT, "", 0, None),
        (errno.EFAULT, "", 3 << 38, None),
    ],
)
def test_what_the_verifier_takes_from_who_lacks_a_capability(
    number: int, log: str, effective: int, why: str | None
) -> None:
    diagnosis = diagnose(replace(_SOCKET_FILTER, errno=number, log=log, effective=effective))
    if why is None:
        assert "without which the verifier" not in diagnosis.why
    else:
        assert why in diagnosis.why


@pytest.mark.parametrize("kind", ["", "syscall", "netfilter"])
def test_a_type_that_may_be_unknown_is_no_loop(kind: str) -> None:
    """EINVAL without a log is find_prog_type()'s, too."""
    diagnosis = diagnose(Situation("load", errno.EINVAL, kind=kind))
    assert diagnosis.cause is Cause.NOT_SUPPORTED


def test_what_comes_next_is_named_where_it_is_not_met_yet() -> None:
    """Who is let in without CAP_BPF needs CAP_PERFMON, too, for pointers; who has it needs no more."""
    refused = replace(_SOCKET_FILTER, errno=errno.EPERM)
    assert diagnose(refused).cure.verifier == ("CAP_PERFMON",)
    assert diagnose(replace(refused, effective=1 << 38)).cure.verifier == ()


@pytest.mark.parametrize(("log", "line"), [("a\nprocessed 3 insns\n", "a"), ("a\n\nb\n  c  \n", "c")])
def test_the_last_line_is_the_last_that_says_something(log: str, line: str) -> None:
    assert last_line(log) == line


def test_a_missing_function_is_shown_with_at_most_three_like_it() -> None:
    similar = ("a1", "sys_execve2", "a3", "a4")
    diagnosis = diagnose(replace(_KPROBE, symbols=similar))
    assert diagnosis.why == "the kernel has no function sys_execve; it has a1, sys_execve2, a3"
    assert diagnosis.remedy == "attach to a1 instead"
    assert "4 KiB" in diagnose(replace(_LOAD, charges_memlock=True, memlock=4096 + 1023)).why


def test_sysctls_are_set_as_low_as_all_needs_ask() -> None:
    """Perf events of who has no capability: Debian's patch asks at 3, perf_allow_cpu() above 0."""
    sysctls = {"kernel.perf_event_paranoid": 3, "kernel.unprivileged_bpf_disabled": 2}
    at = Situation("attach", errno.EACCES, kind="perf_event", hook="perf_event", path="perf", sysctls=sysctls, uid=1)
    diagnosis = diagnose(at)
    assert diagnosis.why == "CAP_SYS_ADMIN missing, and kernel.perf_event_paranoid is 3"
    assert diagnosis.cure.capabilities == ("CAP_SYS_ADMIN",)
    assert diagnosis.other == Remedy(sysctls={"kernel.perf_event_paranoid": 0})


def test_a_kernel_lacks_tcx_only_where_tcx_was_asked_for() -> None:
    """A program of another type does not belong there (link_create() answers EINVAL for both)."""
    assert diagnose(Situation("attach", errno.EINVAL, effective=_ALL)).cause is Cause.UNKNOWN
    wrong = Situation("attach", errno.EINVAL, hook="tcx", kind="xdp", effective=_ALL)
    assert diagnose(wrong).cause is Cause.ATTACH_TYPE


def test_reading_of_memory_is_locked_where_a_program_loads() -> None:
    """security_locked_down(LOCKDOWN_BPF_READ_KERNEL), asked for by bpf_tracing_func_proto(); nothing asks in attach."""
    load = replace(
        _LOAD, errno=errno.EINVAL, log="unknown func bpf_probe_read_kernel#113\n", lockdown="confidentiality"
    )
    assert diagnose(load).cause is Cause.LOCKDOWN
    assert diagnose(replace(load, stage="attach")).cause is not Cause.LOCKDOWN
