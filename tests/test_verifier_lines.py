"""Remedies against the verifier's complaints: as 5.10, 6.1, 6.12 and 7.3 write them, and no rule hides another."""

from __future__ import annotations

import errno

import pytest

from kernel_matrix.diagnose import Cause, Situation, diagnose
from kernel_matrix.diagnose.data import verifier_lines
from kernel_matrix.diagnose.situation import CAPABILITIES

_MAY_NOT = "programs of type kprobe may not call the helper"
#: a complaint -> what its remedy must contain; those that are not seen in a guest are from kernel/bpf/verifier.c
LINES = {
    "invalid access to packet, off=14 size=1, R2(id=0,off=14,r=0)": "data_end",
    "R0 invalid mem access 'map_value_or_null'": "NULL",
    "R0 invalid mem access 'alloc_mem_or_null'": "NULL",
    "R0 invalid mem access 'ringbuf_mem_or_null'": "NULL",
    "R1 invalid mem access 'inv'": "bpf_probe_read_*()",
    "R6 invalid mem access 'scalar'": "a packet's pointers again",
    "R3 !read_ok": "on every path",
    "invalid indirect access to stack R2 off=-1 size=4": "all bytes that it reads",
    "invalid read from stack R2 off=-1 size=4": "all bytes that it reads",
    "invalid indirect read from stack R2 off -8+4 size 8": "give every byte a value",
    "invalid read from stack R3 off=-16 size=8": "give every byte a value",
    "invalid read from stack R2 off -16+0 size 8": "give every byte a value",
    "tail_calls are not allowed when call stack of previous frames is 320 bytes. Too large": "256 bytes",
    "combined stack size of 2 calls is 640. Too large": "per-CPU array",
    "the call stack of 8 frames is too deep !": "7 deep",
    "infinite loop detected at insn 3": "bpf_loop()",
    "R2 unbounded memory access, use 'var &= const' or 'if (var < const)'": "limit the index",
    "R2 unbounded size, use 'var &= const' or 'if (var < const)'": "limit the number",
    "math between fp pointer and register with unbounded min value is not allowed": "limit the index",
    "value -2147483648 makes fp pointer be out of bounds": "limit the index",
    "R2 is not a known constant'": "bpf_ringbuf_output()",
    "R2 is not a const": "bpf_ringbuf_output()",
    "At callback return the register R0 has value (0x2; 0x0) should have been in (0x0; 0x1)": "0 (go on) or 1 (stop)",
    "At callback return the register R0 has smin=2 smax=2 should have been in [0, 1]": "0 (go on) or 1 (stop)",
    "At program exit the register R0 has value (0x5; 0x0) should have been in (0x0; 0x1)": "what this hook takes",
    "invalid bpf_context access off=112 size=8": "what the context has on this kernel",
    "no write support to tcp_sock at off 524": "write only the fields",
    "R1 cannot write into ptr_tcp_sock at off=532 size=4": "write only the fields",
    "access beyond struct task_struct at off 9000 size 8": "CO-RE",
    "security_nothing() is not modifiable": "attach by fexit",
    "Target prog has 2 args while fentry has 3": "like the function that it replaces",
    "helper call might sleep in a non-sleepable prog": "fentry.s",
    "Only fentry/fexit/fmod_ret and lsm programs can be sleepable": "without .s there",
    "__x64_sys_nanosleep is not sleepable": "what may sleep",
    "helper call is not allowed in probe": "bpf_d_path",
    "write into map forbidden": "let user space do it",
    "read from map forbidden": "let user space do it",
    "Unreleased reference id=2 alloc_insn=4": "release what was acquired",
    "tail_call would lead to reference leak": "release what was acquired",
    "metadata kfuncs require device-bound program": "BPF_F_XDP_DEV_BOUND_ONLY",
    "release kernel function bpf_task_release expects refcounted PTR_TO_BTF_ID": "bpf_task_acquire",
    "R1 must be referenced or trusted": "bpf_task_acquire",
    "Possibly NULL pointer passed to trusted arg0": "bpf_task_acquire",
    "function calls are not allowed while holding a lock": "before the call",
    "bpf_spin_unlock is missing": "on every path",
    "BPF_EXIT instruction in main prog cannot be used inside bpf_spin_lock-ed region": "on every path",
    "tracing progs cannot use bpf_timer yet": "in a program of another type",
    "tracing progs cannot use bpf_spin_lock yet": "atomic operations",
    "Global function nothing() doesn't return scalar. Only those are supported.": "return a number",
    "R1 type=scalar expected=fp, pkt, pkt_meta, map_key, map_value": "copy to the stack",
    "kernel function bpf_x args#0 expected pointer to STRUCT task_struct but R1 has": "what the kfunc declares",
    "Arg#0 type PTR in by_pointer() is not supported yet.": "declare it static",
    "Caller passes invalid args into func#1 ('nothing')": "declare it static",
    "misaligned stack access off (0x0; 0x0)+0+-6 size 8": "a multiple of its size",
    "unreachable insn 4": "let the compiler make the code",
    "R0 leaks addr as return value": "keep pointers out",
}


@pytest.mark.parametrize("line", LINES)
def test_a_complaint_has_its_remedy(line: str) -> None:
    assert LINES[line] in verifier_lines.remedy(line)


def test_no_rule_hides_another() -> None:
    remedies = {verifier_lines.remedy(line) for line in LINES}
    assert {text for _, text in verifier_lines.REMEDIES} == remedies


def test_an_unknown_complaint_has_no_remedy() -> None:
    assert verifier_lines.remedy("R1 is a thing that no kernel has") == ""


@pytest.mark.parametrize(
    ("line", "cause", "why"),
    [
        (
            "cannot pass map_type 7 into func bpf_map_lookup_elem#1",
            Cause.VERIFIER,
            "the helper bpf_map_lookup_elem takes no map of type stack_trace here",
        ),
        (
            "cannot pass map_type 99 into func bpf_perf_event_output#25",
            Cause.VERIFIER,
            "the helper bpf_perf_event_output takes no map of type 99 here",
        ),
        (
            "unknown func bpf_override_return#58",
            Cause.NOT_SUPPORTED,
            f"{_MAY_NOT} bpf_override_return on this kernel: CONFIG_BPF_KPROBE_OVERRIDE is not set",
        ),
        (
            "unknown func bpf_redirect_map#51",
            Cause.NOT_SUPPORTED,
            f"{_MAY_NOT} bpf_redirect_map on this kernel",
        ),
    ],
)
def test_what_a_helper_does_not_take_is_named(line: str, cause: Cause, why: str) -> None:
    everything = sum(1 << number for number in CAPABILITIES.values())
    config = {"CONFIG_BPF_KPROBE_OVERRIDE": "n"}
    diagnosis = diagnose(
        Situation(
            "load",
            errno.EINVAL,
            kind="kprobe",
            effective=everything,
            section="kprobe/x",
            log=f"{line}\n",
            config=config,
        )
    )
    assert (diagnosis.cause, diagnosis.why.partition(": cannot")[0]) == (cause, why)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("the call stack of 8 frames is too deep !", "the call stack of 8 frames is too deep !"),
        ("too many subprograms", "too many subprograms"),
        ("BPF program is too large. Processed 1000001 insn", "the verifier goes through no more than 1,000,000"),
        ("", "the verifier goes through no more than 1,000,000"),
    ],
)
def test_a_limit_that_is_passed_is_the_one_that_is_named(line: str, why: str) -> None:
    everything = sum(1 << number for number in CAPABILITIES.values())
    diagnosis = diagnose(Situation("load", errno.E2BIG, kind="xdp", effective=everything, section="xdp", log=line))
    assert diagnosis.cause is Cause.TOO_LARGE
    assert diagnosis.why.startswith(why)
