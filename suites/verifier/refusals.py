"""Programs that the verifier refuses, as data: beside each what is right about it when one thing is changed.

The errnos are those of kernel/bpf/verifier.c, in the function that is named; a piece of the message stands here only
where every kernel of the matrix says it the same way. Registers at the start: r1 is the context, r10 the stack's end.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass

from kernel_matrix.guest.bpf.calls.instructions import (
    add,
    call,
    copy,
    jump,
    jump_if,
    jump_if_above,
    leave,
    load,
    load_map,
    mov,
    raw,
    store,
)

# helpers by their number in linux/bpf.h
_MAP_LOOKUP_ELEM = 1
_GET_PRANDOM_U32 = 7
_GET_CURRENT_TASK = 35
_XDP_ADJUST_HEAD = 44
_NO_SUCH_HELPER = 1_000_000


@dataclass(frozen=True, slots=True)
class Program:
    """What is handed to the kernel; its code may use the file descriptor of an array with one value of 8 bytes."""

    code: Callable[[int], bytes]
    #: libbpf's name of the program type
    kind: str = "socket_filter"
    licence: str = "GPL"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A program that is refused, and its like that is not."""

    name: str
    wrong: Program
    right: Program
    errno: int
    #: a piece of the message that every kernel has, empty where they differ
    says: str = ""


def _code(*instructions: bytes) -> Callable[[int], bytes]:
    return lambda _: b"".join(instructions)


_RETURN_ZERO = (mov(0, 0), leave())


def with_first_value(*behind: bytes) -> Callable[[int], bytes]:
    """Look up the array's value 0, the only one: r0 points to it, or is NULL; what stands behind sees both."""
    return lambda fd: b"".join(
        [store("w", 10, -4, 0), load_map(1, fd), copy(2, 10), add(2, -4), call(_MAP_LOOKUP_ELEM), *behind]
    )


def with_some_value(*behind: bytes) -> Callable[[int], bytes]:
    """Look up the array's value of an index that the verifier cannot know: r0 points to it, or is NULL."""
    return lambda fd: b"".join(
        [
            call(_GET_PRANDOM_U32),
            raw(0x63, 10, 0, -4),
            *(load_map(1, fd), copy(2, 10), add(2, -4), call(_MAP_LOOKUP_ELEM)),
            *behind,
        ]
    )


def _with_packet(*behind: bytes) -> Program:
    """R2 is the packet's first byte, r3 its end: struct xdp_md, data and data_end."""
    return Program(_code(load("w", 2, 1, 0), load("w", 3, 1, 4), *behind), kind="xdp")


REFUSALS = [
    Refusal(
        # check_reg_arg()
        "a register that was never written",
        wrong=Program(_code(copy(0, 2), leave())),
        right=Program(_code(mov(2, 0), copy(0, 2), leave())),
        errno=errno.EACCES,
        says="R2 !read_ok",
    ),
    Refusal(
        # check_return_code() reads r0 with check_reg_arg()
        "no return value",
        wrong=Program(_code(leave())),
        right=Program(_code(*_RETURN_ZERO)),
        errno=errno.EACCES,
        says="R0 !read_ok",
    ),
    Refusal(
        # check_mem_access(): a number is no pointer
        "reading from a number",
        wrong=Program(_code(mov(2, 4096), load("w", 0, 2), leave())),
        right=Program(_code(store("dw", 10, -8, 0), copy(2, 10), load("w", 0, 2, -8), leave())),
        errno=errno.EACCES,
        says="R2 invalid mem access",
    ),
    Refusal(
        # check_mem_access(): PTR_TO_MAP_VALUE_OR_NULL
        "a map's value without asking whether there is one",
        wrong=Program(with_some_value(load("dw", 0, 0), leave())),
        right=Program(with_some_value(jump_if(0, "==", 0, 1), load("dw", 0, 0), leave())),
        errno=errno.EACCES,
        says="R0 invalid mem access 'map_value_or_null'",
    ),
    Refusal(
        # check_mem_region_access(): the value has 8 bytes
        "behind a map's value",
        wrong=Program(with_first_value(jump_if(0, "==", 0, 1), load("dw", 0, 0, 8), leave())),
        right=Program(with_first_value(jump_if(0, "==", 0, 1), load("dw", 0, 0, 0), leave())),
        errno=errno.EACCES,
        says="invalid access to map value, value_size=8 off=8 size=8",
    ),
    Refusal(
        # check_mem_region_access(): any offset of 32 bits is possible
        "an index that nobody has compared with the size",
        wrong=Program(
            with_first_value(jump_if(0, "==", 0, 3), load("w", 1, 0), raw(0x0F, 0, 1), load("b", 0, 0), *_RETURN_ZERO)
        ),
        right=Program(
            with_first_value(
                jump_if(0, "==", 0, 4),
                load("w", 1, 0),
                jump_if(1, ">", 7, 2),
                raw(0x0F, 0, 1),
                load("b", 0, 0),
                *_RETURN_ZERO,
            )
        ),
        errno=errno.EACCES,
        says="unbounded memory access",
    ),
    Refusal(
        # check_packet_access()
        "a packet's byte without asking whether it is there",
        wrong=_with_packet(load("b", 0, 2), leave()),
        right=_with_packet(copy(4, 2), add(4, 1), mov(0, 0), raw(0x2D, 4, 3, 1), load("b", 0, 2), leave()),
        errno=errno.EACCES,
        says="invalid access to packet",
    ),
    Refusal(
        # check_packet_access(): one byte was asked for, two are read
        "a byte more of a packet than was asked for",
        wrong=_with_packet(copy(4, 2), add(4, 1), mov(0, 0), jump_if_above(4, 3, 1), load("h", 0, 2), leave()),
        right=_with_packet(copy(4, 2), add(4, 2), mov(0, 0), jump_if_above(4, 3, 1), load("h", 0, 2), leave()),
        errno=errno.EACCES,
        says="invalid access to packet",
    ),
    Refusal(
        # check_stack_access_within_bounds(), before 5.12 check_stack_access(): MAX_BPF_STACK is 512
        "below the stack",
        wrong=Program(_code(store("dw", 10, -520, 0), *_RETURN_ZERO)),
        right=Program(_code(store("dw", 10, -512, 0), *_RETURN_ZERO)),
        errno=errno.EACCES,
    ),
    Refusal(
        # check_reg_arg()
        "writing the frame pointer",
        wrong=Program(_code(mov(10, 0), *_RETURN_ZERO)),
        right=Program(_code(mov(9, 0), *_RETURN_ZERO)),
        errno=errno.EACCES,
        says="frame pointer is read only",
    ),
    Refusal(
        # check_ctx_access(): sk_filter_is_valid_access() lets a socket filter write cb[] (offset 48) and not len (0)
        "writing a field of the context that is read-only",
        wrong=Program(_code(mov(2, 0), raw(0x63, 1, 2, 0), *_RETURN_ZERO)),
        right=Program(_code(mov(2, 0), raw(0x63, 1, 2, 48), *_RETURN_ZERO)),
        errno=errno.EACCES,
        says="invalid bpf_context access off=0 size=4",
    ),
    Refusal(
        # check_func_arg(): the context is no map
        "a helper's argument of another type",
        wrong=Program(_code(copy(2, 10), call(_MAP_LOOKUP_ELEM), *_RETURN_ZERO)),
        right=Program(with_first_value(*_RETURN_ZERO)),
        errno=errno.EACCES,
        says="R1 type=ctx expected=map_ptr",
    ),
    Refusal(
        # check_alu_op()
        "a division by the constant 0",
        wrong=Program(_code(mov(0, 1), raw(0x37, 0, imm=0), leave())),
        right=Program(_code(mov(0, 1), raw(0x37, 0, imm=1), leave())),
        errno=errno.EINVAL,
        says="div by zero",
    ),
    Refusal(
        # is_state_visited(): a state that comes again, exactly, will come for ever
        "a loop that never ends",
        wrong=Program(_code(mov(6, 0), jump_if(6, "==", 0, -1), *_RETURN_ZERO)),
        right=Program(_code(mov(6, 0), add(6, 1), jump_if(6, "<", 10, -2), *_RETURN_ZERO)),
        errno=errno.EINVAL,
        says="infinite loop detected",
    ),
    Refusal(
        # the same: nothing counts how often it goes round
        "a loop whose end nothing promises",
        wrong=Program(_code(call(_GET_PRANDOM_U32), jump_if(0, "!=", 0, -2), leave())),
        right=Program(
            _code(
                mov(6, 0),
                call(_GET_PRANDOM_U32),
                add(6, 1),
                jump_if(6, ">", 10, 1),
                jump_if(0, "!=", 0, -4),
                *_RETURN_ZERO,
            )
        ),
        errno=errno.EINVAL,
        says="infinite loop detected",
    ),
    Refusal(
        # check_cfg()
        "an instruction that nothing reaches",
        wrong=Program(_code(mov(0, 0), jump(1), mov(0, 1), leave())),
        right=Program(_code(mov(0, 0), jump(0), mov(0, 1), leave())),
        errno=errno.EINVAL,
        says="unreachable insn 2",
    ),
    Refusal(
        # check_subprogs()
        "a jump out of the program",
        wrong=Program(_code(mov(0, 0), jump_if(0, "==", 0, 5), leave())),
        right=Program(_code(mov(0, 0), jump_if(0, "==", 0, 0), leave())),
        errno=errno.EINVAL,
        says="jump out of range from insn 1 to 7",
    ),
    Refusal(
        # check_subprogs()
        "running over the end",
        wrong=Program(_code(mov(0, 0))),
        right=Program(_code(*_RETURN_ZERO)),
        errno=errno.EINVAL,
        says="last insn is not an exit or jmp",
    ),
    Refusal(
        # resolve_pseudo_ldimm64(): bpf_opcode_in_insntable()
        "an instruction that does not exist",
        wrong=Program(_code(raw(0xFF), *_RETURN_ZERO)),
        right=Program(_code(mov(1, 0), *_RETURN_ZERO)),
        errno=errno.EINVAL,
        says="unknown opcode ff",
    ),
    Refusal(
        # check_helper_call(): __BPF_FUNC_MAX_ID
        "a helper that does not exist",
        wrong=Program(_code(call(_NO_SUCH_HELPER), leave())),
        right=Program(_code(call(_GET_PRANDOM_U32), leave())),
        errno=errno.EINVAL,
        says="invalid func unknown#1000000",
    ),
    Refusal(
        # check_helper_call(): sk_filter_func_proto() has no such helper, xdp_func_proto() has
        "a helper of other program types",
        wrong=Program(_code(mov(2, 0), call(_XDP_ADJUST_HEAD), leave())),
        right=Program(_code(mov(2, 0), call(_XDP_ADJUST_HEAD), leave()), kind="xdp"),
        errno=errno.EINVAL,
        # in front of it 5.10 says "unknown func", later kernels "program of this type cannot use helper"
        says="bpf_xdp_adjust_head#44",
    ),
    Refusal(
        # check_helper_call(): gpl_only
        "a helper for GPL programs under another licence",
        wrong=Program(_code(call(_GET_CURRENT_TASK), *_RETURN_ZERO), kind="kprobe", licence="Proprietary"),
        right=Program(_code(call(_GET_CURRENT_TASK), *_RETURN_ZERO), kind="kprobe", licence="Dual BSD/GPL"),
        errno=errno.EINVAL,
        says="cannot call GPL-restricted function from non-GPL compatible program",
    ),
]
