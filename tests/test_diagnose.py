"""From a situation to a diagnosis: one case for each cause, and what holds for all situations."""

from __future__ import annotations

import errno
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_matrix.diagnose import Cause, Diagnosis, Remedy, Situation, diagnose, last_line
from kernel_matrix.diagnose.situation import CAPABILITIES, needed
from tests.test_diagnose_objects import OBJECT_CASES

_ALL = sum(1 << number for number in CAPABILITIES.values())


def _without(*names: str) -> int:
    return _ALL & ~sum(1 << CAPABILITIES[name] for name in names)


_LOAD = Situation("load", errno.EPERM, kind="kprobe", effective=_ALL)
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
    (Situation("update", errno.ENOMEM), Cause.UNKNOWN, "ENOMEM"),
]


@pytest.mark.parametrize(("situation", "cause", "why"), _CASES, ids=[f"{c[1].name} {c[2]}" for c in _CASES])
def test_a_situation_has_a_cause_and_a_remedy(situation: Situation, cause: Cause, why: str) -> None:
    diagnosis = diagnose(situation)
    assert (diagnosis.cause, why in str(diagnosis)) == (cause, True), diagnosis
    assert diagnosis.remedy


def test_every_cause_has_a_case() -> None:
    assert {cause for _, cause, _ in (*_CASES, *OBJECT_CASES)} == set(Cause)


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
