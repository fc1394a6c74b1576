"""Causes of refused objects: maps, externs, sections, records, programs refused before they are verified.

The messages are those of libbpf 1.5 (libbpf.c); `tests/cases` has objects that bring them about.
"""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kernel_matrix.diagnose import Cause, Situation, diagnose
from kernel_matrix.diagnose.situation import CAPABILITIES, ENOTSUPP, MapFacts, libbpf_line

_ALL = sum(1 << number for number in CAPABILITIES.values())
_MAP = MapFacts("seen", "bloom_filter", 0, 4, 1024, users=("second",), programs=2)
_REFUSED = Situation("map_create", errno.EINVAL, effective=_ALL, map=_MAP)
_LOAD = Situation("load", errno.EINVAL, kind="tracing", effective=_ALL, section="tp_btf/x")
_ATTACH = Situation("attach", errno.EINVAL, effective=_ALL)


def _map(number: int, kind: str, *, key: int = 4, value: int = 8, entries: int = 1) -> Situation:
    return replace(_REFUSED, errno=number, map=MapFacts("m", kind, key, value, entries))


def _of(kind: str, **fields: int) -> Situation:
    """Return a map of a type that the kernel knows, refused for a mistake in its description."""
    size = {"key": 4, "value": 8, "entries": 8} | fields
    return replace(_REFUSED, map=MapFacts("m", kind, size["key"], size["value"], size["entries"], size.get("flags", 0)))


def _log(*lines: str) -> str:
    return "".join(f"libbpf: {line}\n" for line in lines)


OBJECT_CASES: list[tuple[Situation, Cause, str]] = [
    (
        Situation(
            "open", errno.EOPNOTSUPP, log=_log("elf: legacy map definitions in 'maps' section are not supported")
        ),
        Cause.LIBBPF,
        'SEC("maps")',
    ),
    (
        Situation("open", errno.EOPNOTSUPP, log=_log("sec 'xdp': program 'f' is static and not supported")),
        Cause.LIBBPF,
        "the program f (xdp) is static",
    ),
    (
        Situation("open", 4005, log=_log("prog 'f': bad map relo against 'counts' in section 'maps/counts'")),
        Cause.LIBBPF,
        'SEC("maps")',
    ),
    (Situation("open", target="f: libbpf (v1.1) does not know the section tcx/x"), Cause.LIBBPF, "libbpf (v1.1)"),
    (
        replace(_ATTACH, errno=errno.EEXIST, kind="struct_ops", target="cubic"),
        Cause.STRUCT,
        "registered already under the name that cubic has",
    ),
    (replace(_ATTACH, errno=errno.EBUSY, kind="struct_ops", target="sched"), Cause.STRUCT, "of the type of sched"),
    (replace(_ATTACH, errno=errno.EEXIST, kind="sk_lookup"), Cause.ATTACH_TYPE, "attached there already"),
    (
        replace(_ATTACH, kind="kprobe", hook="kprobe", section="kretprobe/f+0x4", target="f+0x4"),
        Cause.ATTACH_TYPE,
        "f+0x4 is inside of one",
    ),
    (
        # an option whose conditions do not hold is not in the configuration
        replace(
            _LOAD,
            kind="netfilter",
            section="netfilter",
            absent=frozenset({"BPF_PROG_TYPE_NETFILTER"}),
            config={"CONFIG_BPF_SYSCALL": "y"},
        ),
        Cause.NOT_SUPPORTED,
        "does not know programs of type netfilter: CONFIG_NETFILTER_BPF_LINK is not set",
    ),
    (
        # find_prog_type(): the type is in the BTF, and not in the kernel
        replace(
            _LOAD,
            kind="lirc_mode2",
            section="lirc_mode2",
            absent=frozenset({"BPF_PROG_TYPE_LIRC_MODE2"}),
            config={"CONFIG_BPF_LIRC_MODE2": "n"},
        ),
        Cause.NOT_SUPPORTED,
        "does not know programs of type lirc_mode2: CONFIG_BPF_LIRC_MODE2 is not set",
    ),
    (
        replace(_LOAD, log=_log("prog 'f': missing BPF prog type, check ELF section name 'tc_ingress'")),
        Cause.LIBBPF,
        "it knows no section tc_ingress (did you mean tc?)",
    ),
    (
        replace(_LOAD, log=_log("extern (func ksym) 'bpf_new': not found in kernel or module BTFs"), near=("bpf_now",)),
        Cause.SYMBOL,
        "no kfunc bpf_new to BPF programs; near: bpf_now",
    ),
    (
        replace(_LOAD, log=_log("extern (var ksym) 'bpf_prog_active': not found in kernel BTF")),
        Cause.SYMBOL,
        "no variable bpf_prog_active",
    ),
    (
        replace(_LOAD, log=_log("extern (func ksym) 'bpf_new': func_proto [7] incompatible with vmlinux [99]")),
        Cause.SYMBOL,
        "is another on this kernel than the object declares",
    ),
    (
        replace(_LOAD, errno=errno.ESRCH, log=_log("extern 'CONFIG_X' (strong): not resolved")),
        Cause.SYMBOL,
        "does not set CONFIG_X",
    ),
    (replace(_LOAD, log=_log("failed to open system Kconfig")), Cause.NO_CONFIG, "/boot/config-RELEASE"),
    (
        replace(_REFUSED, absent=frozenset({"BPF_MAP_TYPE_BLOOM_FILTER"})),
        Cause.NOT_SUPPORTED,
        "a map of type bloom_filter (seen); only second uses it",
    ),
    (_map(errno.E2BIG, "percpu_array", value=40960), Cause.MAP_TOO_LARGE, "is 40960 bytes, and a kernel takes 32768"),
    (_map(errno.ENOMEM, "percpu_array", value=40960), Cause.MAP_TOO_LARGE, "PCPU_MIN_UNIT_SIZE"),
    (_map(errno.E2BIG, "hash", key=600), Cause.MAP_TOO_LARGE, "the key of map m is 600 bytes"),
    (_map(errno.ENOMEM, "array", entries=1 << 30), Cause.MAP_TOO_LARGE, "has no memory for map m"),
    (_map(errno.EINVAL, "hash", entries=0), Cause.UNDECLARED, "map m (hash) has no max_entries"),
    (_map(errno.EINVAL, "stack_trace", value=0), Cause.UNDECLARED, "map m (stack_trace) has no size of its values"),
    (_map(errno.EINVAL, "hash"), Cause.UNKNOWN, "refuses its sizes or flags: hash, 1 entries, key 4 bytes"),
    # what alloc_check() of each type demands, in its file below kernel/bpf
    (_of("lpm_trie", key=8), Cause.MAP, "lpm_trie is made with the flag BPF_F_NO_PREALLOC only, and m is lpm_trie"),
    (_of("lpm_trie", key=4, flags=1), Cause.MAP, "has keys of 5 to 260 bytes"),
    (
        replace(_of("lru_hash", flags=1), errno=ENOTSUPP),
        Cause.MAP,
        "lru_hash is never made with the flag BPF_F_NO_PREALLOC",
    ),
    (_of("hash", flags=1 << 10), Cause.MAP, "cannot be mapped into memory (BPF_F_MMAPABLE)"),
    (_of("hash", flags=2), Cause.MAP, "BPF_F_NO_COMMON_LRU"),
    (_of("ringbuf", key=0, entries=4096), Cause.MAP, "has no values"),
    (_of("ringbuf", key=0, value=0, entries=5000), Cause.MAP, "a power of two and of whole pages"),
    (_of("queue"), Cause.MAP, "has no key"),
    (_of("array", key=8), Cause.MAP, "has keys of 4 bytes"),
    (_of("perf_event_array"), Cause.MAP, "has values of 4 bytes"),
    (_of("stack_trace", value=12), Cause.MAP, "whole addresses"),
    (_of("task_storage", entries=0), Cause.MAP, "BPF_F_NO_PREALLOC only"),
    (_of("task_storage", entries=8, flags=1), Cause.MAP, "has no max_entries"),
    (_of("hash", flags=1 << 3), Cause.UNKNOWN, "flags BPF_F_RDONLY"),
    (
        replace(_of("ringbuf", key=0, value=0, entries=4096, flags=1 << 19), absent=frozenset({"BPF_F_RB_OVERWRITE"})),
        Cause.NOT_SUPPORTED,
        "does not know the flag BPF_F_RB_OVERWRITE of map m",
    ),
    (
        replace(_LOAD, log=_log("map 't': failed to initialize slot [1] to prog 'other' fd=8: -22")),
        Cause.TABLE,
        "other does not fit the table of programs t (slot 1)",
    ),
    (
        replace(
            _LOAD,
            errno=errno.ESRCH,
            kind="struct_ops",
            log=_log("struct_ops init_kern: struct sched_ext_ops is not found in kernel BTF"),
        ),
        Cause.NOT_SUPPORTED,
        "no struct sched_ext_ops that programs can implement",
    ),
    (
        replace(_ATTACH, kind="struct_ops", target="half"),
        Cause.STRUCT,
        "does not take the struct half: a member that it demands is missing",
    ),
    (
        replace(_LOAD, errno=errno.ENOENT, kind="ext", log=_log("f is not found in prog's BTF")),
        Cause.SYMBOL,
        "has no function f",
    ),
    # the verifier, and libbpf's fixup_verifier_log()
    (
        replace(_LOAD, kind="tracepoint", log="4: (85) call unknown#181\ninvalid func unknown#181\n"),
        Cause.NOT_SUPPORTED,
        "this kernel has no helper bpf_loop (181)",
    ),
    (replace(_LOAD, log="invalid func unknown#9999\n"), Cause.NOT_SUPPORTED, "no helper number 9999"),
    (
        replace(_LOAD, kind="socket_filter", log="program of this type cannot use helper bpf_redirect#23\n"),
        Cause.NOT_SUPPORTED,
        "programs of type socket_filter may not call the helper bpf_redirect",
    ),
    (
        replace(_LOAD, log="<invalid kfunc call>\nkfunc 'bpf_new' is referenced but wasn't resolved\n"),
        Cause.SYMBOL,
        "calls the kfunc bpf_new, which this kernel has not, without asking first",
    ),
    (
        replace(
            _LOAD,
            log="number of funcs in func_info doesn't match number of subprogs\n",
            absent=frozenset({"BPF_FUNC_for_each_map_elem"}),
        ),
        Cause.NOT_SUPPORTED,
        "no functions that helpers call back",
    ),
    (
        replace(_ATTACH, kind="sk_skb", path="prog_attach", absent=frozenset({"BPF_SK_SKB_VERDICT"})),
        Cause.NOT_SUPPORTED,
        "attach type BPF_SK_SKB_VERDICT",
    ),
    (
        replace(
            _ATTACH,
            errno=errno.EOPNOTSUPP,
            kind="kprobe",
            section="kprobe.session/f",
            absent=frozenset({"BPF_TRACE_KPROBE_SESSION"}),
        ),
        Cause.NOT_SUPPORTED,
        "attach type BPF_TRACE_KPROBE_SESSION",
    ),
    (
        replace(_LOAD, kind="xdp", errno=errno.EACCES, log="calling kernel function bpf_new is not allowed\n"),
        Cause.NOT_SUPPORTED,
        "programs of type xdp may not call the kfunc bpf_new",
    ),
    (replace(_LOAD, log="BPF_STX uses reserved fields\n"), Cause.NOT_SUPPORTED, "does not know an instruction"),
    (
        replace(_LOAD, errno=errno.EFAULT, log="The sequence of 8193 jumps is too complex.\n"),
        Cause.TOO_LARGE,
        "no more than 8192 branches",
    ),
    (
        replace(
            _LOAD,
            log="<invalid CO-RE relocation>\nfailed to resolve CO-RE relocation"
            " <byte_off> [5] struct task_struct___old.state (0:0 @ offset 0)\n",
            near=("__state",),
        ),
        Cause.SYMBOL,
        "looks for: struct task_struct.state (declared as struct task_struct___old.state); near: __state",
    ),
    (
        replace(_LOAD, errno=errno.ENOENT, log="ldimm64 failed to find the address for kernel symbol 'runqueues'.\n"),
        Cause.SYMBOL,
        "list of symbols has no variable runqueues",
    ),
    (
        replace(
            _LOAD,
            errno=errno.ESRCH,
            section="fentry/f",
            log="failed to find kernel BTF type ID of 'f': -3",
            symbols=("f",),
        ),
        Cause.SYMBOL,
        "has the function f, and no type of it in its BTF",
    ),
    (
        replace(_LOAD, errno=errno.ENOENT, log="The address of function f cannot be found\n", symbols=("f.isra.0",)),
        Cause.SYMBOL,
        "has no function f; it has f.isra.0\nremedy: attach a kprobe",
    ),
    # probes of the kernel and of programs
    (replace(_ATTACH, hook="kprobe", target="f"), Cause.ATTACH_TYPE, "blacklist of kprobes, or there is code that"),
    (
        replace(_ATTACH, errno=errno.ENOENT, hook="kprobe", target="f", symbols=("f.isra.0",)),
        Cause.SYMBOL,
        "it has f.isra.0\nremedy: attach a kprobe to f.isra.0 instead (a compiler's copy",
    ),
    (replace(_ATTACH, errno=errno.ENOENT, hook="kprobe", target="f"), Cause.SYMBOL, "in a module that is not loaded"),
    (
        replace(_ATTACH, errno=errno.ENOENT, hook="kprobe", target="f", symbols=("f",), config={"CONFIG_KPROBES": "y"}),
        Cause.UNKNOWN,
        "ENOENT",
    ),
    (replace(_ATTACH, errno=errno.EADDRNOTAVAIL, hook="kprobe", target="f"), Cause.SYMBOL, "several functions f"),
    (replace(_ATTACH, errno=errno.EILSEQ, hook="kprobe", target="f+0x1"), Cause.ATTACH_TYPE, "f+0x1 is not where"),
    (
        replace(_ATTACH, errno=errno.ENOENT, hook="kprobe", target="new_call", section="ksyscall/new_call"),
        Cause.SYMBOL,
        "no system call new_call",
    ),
    (
        replace(_ATTACH, errno=524, kind="tracing", section="fentry/of_many", arguments=7),
        Cause.NOT_SUPPORTED,
        "of_many has 7 arguments here, and a trampoline of this kernel passes 6",
    ),
    (
        replace(_ATTACH, errno=524, kind="tracing", section="fentry/of_few", arguments=6),
        Cause.NOT_SUPPORTED,
        "no BPF trampoline",
    ),
    (
        replace(_ATTACH, errno=errno.EBUSY, section="fentry/inlined", traceable=False),
        Cause.ATTACH_TYPE,
        "inlined cannot be traced",
    ),
    (
        replace(_ATTACH, errno=errno.EBUSY, section="fexit.s/patched", traceable=True),
        Cause.ATTACH_TYPE,
        "something else is attached to the beginning of patched",
    ),
    (
        replace(_ATTACH, errno=errno.ENOENT, section="raw_tp/sched_swich", near=("sched_switch",)),
        Cause.SYMBOL,
        "no tracepoint sched_swich; near: sched_switch",
    ),
    (
        replace(_ATTACH, errno=errno.ENOENT, hook="uprobe", log=_log("elf: failed to find symbol 'f' in '/lib/l.so'")),
        Cause.SYMBOL,
        "/lib/l.so has no function f",
    ),
    (
        Situation("pin", errno.EINVAL, map=_MAP, log=_log("map 'seen': couldn't reuse pinned map: parameter mismatch")),
        Cause.PIN,
        "pinned as seen already",
    ),
    (
        replace(_LOAD, kind="netfilter", absent=frozenset({"BPF_PROG_TYPE_NETFILTER"})),
        Cause.NOT_SUPPORTED,
        "programs of type netfilter",
    ),
    (
        replace(_LOAD, kind="xdp", section="xdp.frags", absent=frozenset({"xdp_has_frags"})),
        Cause.NOT_SUPPORTED,
        "no XDP for frames in fragments",
    ),
    (
        replace(_LOAD, kind="lsm", section="lsm_cgroup/x", absent=frozenset({"BPF_LSM_CGROUP"})),
        Cause.NOT_SUPPORTED,
        "does not know the attach type BPF_LSM_CGROUP",
    ),
    *[
        (
            replace(_LOAD, errno=errno.ESRCH, section=section, log="failed to find kernel BTF type ID of 'x': -3"),
            Cause.SYMBOL,
            why,
        )
        for section, why in {
            "iter/x": "no iterator over x",
            "iter.s/x": "no iterator over x",
            "lsm.s/x": "no LSM hook x",
            "tp_btf/x": "no tracepoint x",
            "fentry/x": "no function x",
        }.items()
    ],
    (_LOAD, Cause.UNKNOWN, "the program (type tracing, section tp_btf/x) is refused before it is verified"),
    (
        replace(
            _LOAD,
            kind="struct_ops",
            log=_log("struct_ops init_kern x: Cannot find kernel member y", "failed to load object 'x'"),
        ),
        Cause.UNKNOWN,
        "libbpf says: struct_ops init_kern x: Cannot find kernel member y",
    ),
    (
        replace(_ATTACH, errno=errno.EACCES, kind="tracepoint", hook="tracepoint", target="skb:x", record=26),
        Cause.RECORD,
        "the record of skb:x, which is 26 bytes",
    ),
    (
        replace(
            _ATTACH,
            errno=errno.EOPNOTSUPP,
            hook="uprobe",
            log=_log("usdt: attaching to shared libraries without specific PID is not supported on current kernel"),
        ),
        Cause.NOT_SUPPORTED,
        "a library's USDT probe to one process only",
    ),
    (
        replace(_ATTACH, errno=errno.ESRCH, hook="uprobe", log=_log("usdt: failed to find USDT support BPF maps")),
        Cause.OBJECT,
        "include bpf/usdt.bpf.h",
    ),
    (replace(_ATTACH, hook="kprobe.multi"), Cause.NOT_SUPPORTED, "needs 5.18 and CONFIG_FPROBE"),
    (replace(_ATTACH, errno=errno.EOPNOTSUPP, hook="kprobe.multi"), Cause.NOT_SUPPORTED, "CONFIG_FPROBE"),
    (replace(_ATTACH, errno=errno.ESRCH, hook="kprobe.multi", target="no_*"), Cause.SYMBOL, "matches no_*"),
    (replace(_ATTACH, errno=errno.EOPNOTSUPP, hook="netkit", path="link"), Cause.NOT_SUPPORTED, "no netkit"),
    (
        replace(_ATTACH, path="link", kind="cgroup_sock_addr", absent=frozenset({"BPF_CGROUP_UNIX_CONNECT"})),
        Cause.NOT_SUPPORTED,
        "attach type BPF_CGROUP_UNIX_CONNECT",
    ),
]


@pytest.mark.parametrize(("situation", "cause", "why"), OBJECT_CASES, ids=[f"{c[1].name} {c[2]}" for c in OBJECT_CASES])
def test_a_refused_object_has_a_cause_and_a_remedy(situation: Situation, cause: Cause, why: str) -> None:
    diagnosis = diagnose(situation)
    assert (diagnosis.cause, why in str(diagnosis)) == (cause, True), diagnosis
    assert diagnosis.remedy


@pytest.mark.parametrize("kind", ["tracing", "kprobe", "xdp", "lsm", "struct_ops"])
def test_a_type_that_the_kernel_has_is_not_denied(kind: str) -> None:
    """An EINVAL of something else must not read as if the kernel lacked the type."""
    for log in ("", _log("extern (func ksym) 'bpf_x': not found in kernel or module BTFs")):
        assert "does not know programs" not in str(diagnose(replace(_LOAD, kind=kind, log=log)))


def test_a_map_type_that_the_kernel_has_is_not_denied() -> None:
    assert "does not make a map of type" not in str(diagnose(_REFUSED))


def test_libbpfs_own_reason_is_the_last_that_says_more() -> None:
    log = _log(
        "struct_ops: no member x", "prog 'a': BPF program load failed: EINVAL", "failed to load object 'x.bpf.o'"
    )
    assert libbpf_line(log) == "struct_ops: no member x"
    assert libbpf_line("verifier's line\n") == ""


@given(st.sampled_from([errno.E2BIG, errno.ENOMEM]), st.integers(1, 1 << 20) | st.integers(32750, 32785))
@example(errno.E2BIG, 32768)
@example(errno.E2BIG, 32769)
def test_per_cpu_values_are_blamed_above_the_limit_only(number: int, value: int) -> None:
    """array_map_alloc_check() compares the value rounded up to eight bytes with PCPU_MIN_UNIT_SIZE."""
    blamed = "PCPU_MIN_UNIT_SIZE" in str(diagnose(_map(number, "percpu_hash", value=value)))
    assert blamed is (value > 32768)


def test_a_lacking_capability_comes_before_the_record() -> None:
    """perf_event_open(), and the file with a tracepoint's number, answer EACCES, too."""
    situation = replace(
        _ATTACH, errno=errno.EACCES, kind="tracepoint", hook="tracepoint", target="sched:x", record=26, effective=0
    )
    assert diagnose(situation).cause is Cause.PERMISSION


_MISMATCH = _log("map 'seen': couldn't reuse pinned map: parameter mismatch")
_RECORD = replace(_ATTACH, errno=errno.EACCES, kind="tracepoint", hook="tracepoint", target="skb:x", record=26)


@pytest.mark.parametrize(
    ("situation", "cause"),
    [
        # libbpf's sections are known when it opens the object, and it gives no errno for them
        (Situation("attach", target="f: libbpf does not know the section x"), Cause.LIBBPF),
        (Situation("open", errno.EINVAL, target="f: libbpf does not know the section x"), Cause.LIBBPF),
        # other errnos come before the description of a map is looked at
        (_map(errno.EBUSY, "hash", entries=0), Cause.UNDECLARED),
        (_map(errno.EDEADLK, "hash", entries=0), Cause.UNDECLARED),
        (Situation("pin", errno.EINVAL, map=_MAP), Cause.PIN),
        (Situation("pin", errno.EINVAL, log=_MISMATCH), Cause.PIN),
        (replace(_REFUSED, log=_MISMATCH), Cause.PIN),
        (replace(_LOAD, kind="xdp", section="xdp.frags"), Cause.NOT_SUPPORTED),
        (replace(_LOAD, kind="xdp", section="xdp", absent=frozenset({"xdp_has_frags"})), Cause.NOT_SUPPORTED),
        (replace(_RECORD, stage="load"), Cause.RECORD),
        (replace(_RECORD, hook="kprobe"), Cause.RECORD),
        (replace(_RECORD, errno=errno.EIO), Cause.RECORD),
        (replace(_RECORD, errno=errno.EBUSY), Cause.RECORD),
        (replace(_RECORD, record=None), Cause.RECORD),
    ],
)
def test_a_cause_needs_everything_that_shows_it(situation: Situation, cause: Cause) -> None:
    assert diagnose(situation).cause is not cause


@pytest.mark.parametrize(
    "situation",
    [
        replace(_LOAD, stage="attach"),
        replace(_LOAD, errno=errno.EIO),
        replace(_LOAD, log="R1 type=scalar expected=ctx\n"),
    ],
)
def test_what_the_verifier_refused_was_not_refused_before(situation: Situation) -> None:
    assert "before it is verified" not in str(diagnose(situation))


@pytest.mark.parametrize(
    ("number", "key", "why"),
    [
        (errno.E2BIG, 513, "the key of map m is 513 bytes, and a kernel takes 512 (MAX_BPF_STACK)"),
        (errno.E2BIG, 512, "the kernel makes no map m: hash, 1 entries, key 512 bytes, value 8 bytes"),
        (errno.E2BIG, 4, "the kernel makes no map m: hash, 1 entries, key 4 bytes, value 8 bytes"),
        # E2BIG alone says that a size is refused
        (errno.ENOMEM, 600, "the kernel has no memory for map m: hash, 1 entries, key 600 bytes, value 8 bytes"),
    ],
)
def test_a_key_is_blamed_above_the_stack_s_size_only(number: int, key: int, why: str) -> None:
    assert why in str(diagnose(_map(number, "hash", key=key)))


@pytest.mark.parametrize(
    ("users", "programs", "shown"),
    [
        ((), 2, False),
        (("a",), 2, "; only a uses it"),
        (("a", "b"), 3, "; only a, b use it"),
        (("a", "b"), 2, False),
    ],
)
def test_who_uses_a_map_is_shown_where_not_all_do(users: tuple[str, ...], programs: int, shown: str | bool) -> None:
    refused = replace(_MAP, users=users, programs=programs)
    diagnosis = str(diagnose(replace(_REFUSED, map=refused, absent=frozenset({"BPF_MAP_TYPE_BLOOM_FILTER"}))))
    assert shown in diagnosis if isinstance(shown, str) else "; only" not in diagnosis
    assert ("bpf_program__set_autoload" in diagnosis) is bool(users)


def test_three_names_that_are_near_are_shown() -> None:
    near = ("bpf_a", "bpf_b", "bpf_c", "bpf_d")
    shown = str(diagnose(replace(_LOAD, log=_log("extern (func ksym) 'bpf_x': not found in kernel"), near=near)))
    assert "; near: bpf_a, bpf_b, bpf_c" in shown
    assert "bpf_d" not in shown


@pytest.mark.parametrize("start", ["syscalls:sys_enter_", "syscalls:sys_exit_"])
def test_a_tracepoint_of_a_system_call_names_the_call(start: str) -> None:
    at = replace(
        _ATTACH, errno=errno.ENOENT, hook="tracepoint", target=f"{start}new", mounts={"/sys/kernel/tracing": "tracefs"}
    )
    assert "this kernel has no system call new\n" in str(diagnose(at))
