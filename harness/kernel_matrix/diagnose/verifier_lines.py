"""What helps against the verifier's usual complaints: a pattern of its last line -> a remedy. Pure data."""

from __future__ import annotations

import re

#: kernel/bpf/verifier.c, in the order in which they are tried; the numbers in them are left out
_REMEDIES: tuple[tuple[str, str], ...] = (
    (r"invalid access to packet|outside of the packet", "compare the address with data_end before the access"),
    (
        r"invalid mem access '(map_value|\w+)_or_null'|R\d+ is .*_or_null",
        "compare the pointer with NULL before the access",
    ),
    (r"!read_ok", "give the variable a value on every path"),
    (
        r"invalid (indirect )?(read|access) (from|to) (variable-offset )?stack|invalid indirect access to stack",
        "give every byte a value first, also those between fields (memset, = {}), within the stack's 512 bytes",
    ),
    (
        r"combined stack size|stack depth|invalid stack (off|type)|stack .* exceeds",
        "keep large values in a per-CPU array instead of on the stack, whose 512 bytes all called functions share",
    ),
    (r"infinite loop|back-edge", "give the loop an end that the verifier can see, or use bpf_loop()"),
    (
        r"unbounded m(emory access|in value)|max value is outside|invalid access to map value|min value is neg",
        "limit the index before the access, by a comparison or a mask",
    ),
    (
        r"At program exit the register R0|At subprogram exit|R0 .*should have been in",
        "return only what this hook takes",
    ),
    (
        r"invalid bpf_context access|dereference of modified ctx",
        "read only what the context of this type has on this kernel: arguments and fields differ between kernels",
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
    (r"Unreleased reference|reference has not been", "release what was acquired on every path"),
    (r"bpf_spin_lock|bpf_spin_unlock", "use atomic operations, or lock in a program of another type"),
    (r"invalid args into func|Arg#\d+|arg#\d+", "declare the function static, or pass it what it says it takes"),
    (r"unreachable insn|last insn is not an exit", "let the compiler make the code, without jumps of its own"),
    (r"leaks addr|pointer arithmetic|pointer comparison", "keep pointers out of maps, results and arithmetic"),
)


def remedy(line: str) -> str:
    """Return what helps against a complaint; empty: nothing is known."""
    return next((text for pattern, text in _REMEDIES if re.search(pattern, line)), "")
