"""Attach a program where its section names the place, or the table does for it."""

from __future__ import annotations

import ctypes
import errno
import os
from ctypes import c_bool
from functools import partial
from pathlib import Path

from kernel_matrix.guest.bpf import steps, structs
from kernel_matrix.guest.bpf.diagnosis import machine
from kernel_matrix.guest.bpf.foreign.hooks.attaching import Attaching
from kernel_matrix.guest.bpf.library import libbpf
from kernel_matrix.guest.bpf.step_error import StepError
from kernel_matrix.shared.outcomes.proposals import CHOSEN

#: sections of probes in user space, whose target is made here where they name none
_USER = frozenset({"uprobe", "uretprobe", "usdt"})
#: a function of a library that every guest has, and a probe (SDT) of another: Debian's C library has none
_FUNCTION = (b"libc.so.6", b"getpid")
_PROBE = (b"libstdc++.so.6", b"libstdcxx", b"catch")
#: every process
_ALL = -1


def by_section(at: Attaching) -> str:
    """Attach to what the section, or the table, names."""
    if at.hook in _USER or at.hook.removesuffix(".multi") in _USER:
        return _user(at)
    pointer = at.program.pointer
    if at.hook in CHOSEN:
        if not at.target:
            raise at.undeclared(f"its section {at.section} does not say where its loader attaches it", CHOSEN[at.hook])
        if at.program.name in at.foreign.settings.targets:
            return _named(at)
        if at.hook in {"tp", "tracepoint"} and "/" not in at.target:
            raise at.undeclared(f"its section {at.section} does not say which category's", f"CATEGORY:{at.target}")
    what = steps.where(pointer) if at.hook not in {"kprobe.multi", "kretprobe.multi"} else f"kprobe.multi {at.target}"
    in_vain = _never_called(at)
    try:
        at.link(what, partial(libbpf().bpf_program__attach, pointer))
    except StepError as error:
        if error.errno == errno.EOPNOTSUPP and not at.target:
            raise at.undeclared(f"nothing here is a target for its section {at.section}", "TARGET") from error
        raise
    if in_vain is not None:
        raise in_vain
    return at.target or at.section


def _never_called(at: Attaching) -> StepError | None:
    """Return that an LSM program runs never: bpf is not among the active modules.

    This is read before it is attached: a program that denies opening files denies it to the engine, too.
    """
    if steps.kind_of(at.program.pointer) != "lsm" or "bpf" in (machine.active_lsms() or ("bpf",)):
        return None
    return StepError(0, "attach", f"{at.program.name}: bpf is not an active security module", kind="lsm")


def _named(at: Attaching) -> str:
    """Attach a probe of the kernel to what the table names."""
    pointer, target, lib = at.program.pointer, at.target, libbpf()
    returning = c_bool("ret" in at.hook)
    if at.hook in {"tp", "tracepoint"}:
        category, _, event = target.partition(":")
        step = partial(lib.bpf_program__attach_tracepoint, pointer, category.encode(), event.encode())
        at.link(f"tracepoint {target}", step)
    elif at.hook in {"raw_tp", "raw_tracepoint"}:
        at.link(f"raw tracepoint {target}", partial(lib.bpf_program__attach_raw_tracepoint, pointer, target.encode()))
    elif at.hook.endswith(".multi"):
        step = partial(lib.bpf_program__attach_kprobe_multi_opts, pointer, target.encode(), None)
        at.link(f"kprobe.multi {target}", step)
    else:
        at.link(f"kprobe {target}", partial(lib.bpf_program__attach_kprobe, pointer, returning, target.encode()))
    return target


def _user(at: Attaching) -> str:
    """Attach to a function or probe of a program: that of the table or the section, or one of a library."""
    pointer, lib, declared = at.program.pointer, libbpf(), at.foreign.settings.targets.get(at.program.name)
    process = _ALL
    if not at.target:
        # a kernel without cookies of uprobes (5.15) can only trace a library in one process, so it is in this one
        process = os.getpid()
        ctypes.CDLL(_PROBE[0].decode())
        file, *names = _PROBE if at.hook == "usdt" else _FUNCTION
    else:
        path, *rest = at.target.split(":")
        example = "/FILE:PROVIDER:NAME" if at.hook == "usdt" else "/FILE:SYMBOL"
        if not rest:
            raise at.undeclared(f"its section {at.section} names no file: its loader does", example)
        if path.startswith("/") and not Path(path).exists():
            raise at.undeclared(f"there is no file {path} here: name one that the guest has", example)
        if not declared:
            try:
                at.link(f"{at.hook} {at.target}", partial(lib.bpf_program__attach, pointer))
            except StepError as error:
                if "failed to resolve full path" in error.log:
                    raise at.undeclared(
                        f"there is no file {path} here: name one that the guest has", example
                    ) from error
                raise
            return at.target
        file, names = path.encode(), [word.encode() for word in rest]
    at.link(f"{at.hook} {at.target or file.decode()}", partial(_attach_user, at, file, names, process))
    return at.target or b":".join((file, *names)).decode()


def _attach_user(at: Attaching, file: bytes, names: list[bytes], process: int) -> int | None:
    pointer, lib = at.program.pointer, libbpf()
    if at.hook == "usdt":
        return lib.bpf_program__attach_usdt(pointer, process, file, names[0], names[1], None)  # type: ignore[no-any-return]
    if at.hook.endswith(".multi"):
        return lib.bpf_program__attach_uprobe_multi(pointer, process, file, names[0], None)  # type: ignore[no-any-return]
    opts = structs.UprobeOpts(
        sz=ctypes.sizeof(structs.UprobeOpts), retprobe=at.hook.startswith("uret"), func_name=names[0]
    )
    return lib.bpf_program__attach_uprobe_opts(pointer, process, file, 0, ctypes.byref(opts))  # type: ignore[no-any-return]
