"""What helps against the verifier's usual complaints: a pattern of its last line -> a remedy. Pure data."""

from __future__ import annotations

import re

#: kernel/bpf/verifier.c, in the order in which they are tried; the numbers in them are left out
REMEDIES: tuple[tuple[str, str], ...] = (
    (r"invalid access to packet|outside of the packet", "compare the address with data_end before the access"),
    (
        r"invalid mem access '(map_value|\w+)_or_null'|R\d+ is .*_or_null",
        "compare the pointer with NULL before the access",
    ),
    (
        # a number where a pointer was: read from memory, or a packet's pointer behind a helper that moves the packet
        r"invalid mem access '(scalar|inv)'",
        "read memory by bpf_probe_read_*(), and a packet's pointers again behind each helper that can move the packet",
    ),
    (r"!read_ok", "give the variable a value on every path"),
    (
        # check_stack_range_initialized(): the helper reads past the end of the stack
        r"stack R\d+ off=-(?P<off>\d+) size=(?P<size>\d+)",
        "give the helper a pointer to all bytes that it reads: a key and a value are as large as the map declares them",
    ),
    (
        r"invalid (indirect )?(read|access) (from|to) (variable-offset )?stack|invalid indirect access to stack",
        "give every byte a value first, also those between fields (memset, = {}), within the stack's 512 bytes",
    ),
    (
        # check_max_stack_depth_subprog()
        r"tail_calls are not allowed when call stack",
        "use less than 256 bytes of the stack in functions that call one with a tail call",
    ),
    (
        r"combined stack size|stack depth|invalid stack (off|type)|stack .* exceeds",
        "keep large values in a per-CPU array instead of on the stack, whose 512 bytes all called functions share",
    ),
    (
        # check_max_stack_depth_subprog(): MAX_CALL_FRAMES, the program's own among them
        r"call stack of \d+ frames is too deep",
        "call functions no more than 7 deep, or let the compiler inline some (__always_inline)",
    ),
    (r"infinite loop|back-edge", "give the loop an end that the verifier can see, or use bpf_loop()"),
    (
        r"unbounded m(emory access|in value)|be out of bounds|max value is outside|access to map value|min value is",
        "limit the index before the access, by a comparison or a mask",
    ),
    (
        r"unbounded size|invalid zero-sized read",
        "limit the number (of a size also from below, to 1), by a comparison or a mask",
    ),
    (
        # check_func_arg(), ARG_CONST_ALLOC_SIZE_OR_ZERO and the like
        r"is not a (known )?const|must be a known constant",
        "give the call a constant there; bpf_ringbuf_output() takes a record whose size is known only when it runs",
    ),
    (r"At callback return", "let the function that is called back return 0 (go on) or 1 (stop)"),
    (
        r"At program exit the register R0|At subprogram exit|R0 .*should have been in",
        "return only what this hook takes",
    ),
    (
        r"invalid bpf_context access|dereference of modified ctx",
        "access only what the context has on this kernel: arguments, fields, and which may be written, differ",
    ),
    (
        # bpf_tcp_ca_btf_struct_access() and its siblings; btf_struct_access()
        r"no write support to|cannot write into ptr_|only read is supported",
        "write only the fields that this type of program may write; others are set by helpers and kfuncs, if at all",
    ),
    (
        # kernel/bpf/btf.c, btf_struct_walk()
        r"doesn't have field at offset|access beyond (the end of member|struct)",
        "read the field by CO-RE (preserve_access_index): where it lies differs between kernels",
    ),
    (r"is not modifiable", "fmod_ret takes functions that allow error injection, and security_*: attach by fexit"),
    (r" args while | doesn't match .* function", "declare it like the function that it replaces"),
    (
        r"might sleep|sleepable helper|sleepable kfunc",
        "call it in a program that may sleep (fentry.s, lsm.s, uprobe.s, iter.s, syscall)",
    ),
    (r"Only .* can be sleepable", "use the section without .s there"),
    (r"is not sleepable", "use the section without .s, or attach to what may sleep"),
    (
        # check_helper_call(), fn->allowed: bpf_d_path() has a list, btf_allowlist_d_path
        r"helper call is not allowed in probe",
        "attach to a function that may call it (bpf_d_path: filp_close, security_file_*, newer: LSM hooks that sleep)",
    ),
    (
        # check_map_access_type(): BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG; a devmap is read-only for programs
        r"(write into|read from) map forbidden",
        "let user space do it: the map's type, or a flag (BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG), denies it to programs",
    ),
    (
        r"Unreleased reference|reference has not been|would lead to reference leak",
        "release what was acquired on every path",
    ),
    (
        r"must be referenced or trusted|expects refcounted|trusted arg|must be a rcu pointer|is untrusted_ptr",
        "pass the program's own argument, or what a kfunc acquired (bpf_task_acquire) and is compared with NULL",
    ),
    (
        r"while holding a lock",
        "unlock before the call, or call it before the lock is taken",
    ),
    (
        # check_resource_leak(), do_check(): process_bpf_exit
        r"bpf_spin_unlock is missing|inside bpf_spin_lock-ed|bpf_rcu_read_(un)?lock|inside bpf_rcu|inside bpf_preempt",
        "unlock on every path before the program ends",
    ),
    (r"cannot use bpf_timer", "start the timer in a program of another type (XDP, tc, cgroup), or use a newer kernel"),
    (r"bpf_spin_lock|bpf_spin_unlock", "use atomic operations, or lock in a program of another type"),
    (
        # btf_check_subprog_arg_match() and do_check(): functions that are verified on their own
        r"doesn't return scalar|must return a scalar",
        "let the function return a number, or declare it static",
    ),
    (
        # check_kfunc_call(): bpf_dev_bound_kfunc_check()
        r"metadata kfuncs require device-bound",
        "load it in XDP for one interface (bpf_program__set_ifindex() and the flag BPF_F_XDP_DEV_BOUND_ONLY)",
    ),
    (r"R\d+ type=\S+ expected=", "pass a pointer of the type that is expected there, or copy to the stack first"),
    (
        # kernel/bpf/verifier.c, check_kfunc_args()
        r"kernel function \w+ args?#",
        "pass what the kfunc declares: a struct of the kernel's own, the context, or memory of a constant size",
    ),
    (r"invalid args into func|Arg#\d+|arg#\d+", "pass what the called function declares, or declare it static"),
    (r"misaligned", "access it at a multiple of its size, or byte by byte (memcpy)"),
    (r"unreachable insn|last insn is not an exit", "let the compiler make the code, without jumps of its own"),
    (r"leaks addr|pointer arithmetic|pointer comparison", "keep pointers out of maps, results and arithmetic"),
)


def remedy(line: str) -> str:
    """Return what helps against a complaint; empty: nothing is known."""
    for pattern, text in REMEDIES:
        if (match := re.search(pattern, line)) and not _is_within(match):
            return text
    return ""


def _is_within(match: re.Match[str]) -> bool:
    """Whether a complaint about bytes of the stack is about bytes that are on it: they have no value."""
    groups = match.groupdict()
    return bool(groups) and int(groups["size"]) <= int(groups["off"])
