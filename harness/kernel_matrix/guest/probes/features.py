"""Probe whether the running kernel has a feature by using it.

Only success and the kernel's own "not supported" are conclusive; any other error is raised, because it does not
answer the question. The probes need every capability and leave nothing behind.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from pathlib import Path

from kernel_matrix.guest.bpf import steps
from kernel_matrix.guest.bpf.btf import Btf
from kernel_matrix.guest.bpf.calls import bpf_calls, instructions
from kernel_matrix.guest.bpf.calls.verifier import verified
from kernel_matrix.guest.system import execs
from kernel_matrix.guest.system.deadline import wait_until
from kernel_matrix.guest.system.preemption import beside, urgent
from kernel_matrix.guest.system.privilege import NOBODY, Cap, ChildError, run_as, with_only, without_capabilities

#: the loopback interface of the current network namespace
_LO = "lo"
#: ENOTSUPP of linux/errno.h, which is internal to the kernel, but reaches user space
_ENOTSUPP = 524

#: bytes of the largest aggregate before BIG TCP: GSO_MAX_SIZE of linux/netdevice.h
_AGGREGATE = 65536

_LRU_HASH = steps.MapSpec("lru_hash", key=4, value=4, entries=1)
_ARRAY = steps.MapSpec("array", key=4, value=4, entries=1)
_RINGBUF = steps.MapSpec("ringbuf", key=0, value=0, entries=mmap.PAGESIZE)


def _does(step: Callable[[], object], *, unsupported: Collection[int]) -> bool:
    """Whether the step works; these errnos mean that it does not, any other error is raised."""
    try:
        step()
    except OSError as error:
        if error.errno in unsupported:
            return False
        raise
    return True


def _create(spec: steps.MapSpec) -> None:
    os.close(steps.create_map(spec))


def _load(program: str) -> None:
    with steps.loaded(steps.object_path("engine/probes"), program):
        pass


def _attach_by_section(program: str) -> None:
    with (
        steps.loaded(steps.object_path("engine/probes"), program) as probe,
        steps.by_section(probe.programs[program]),
    ):
        pass


def _ringbuf() -> bool:
    """Create a ring buffer: find_and_alloc_map() returns EINVAL for an unknown map type."""
    return _does(lambda: _create(_RINGBUF), unsupported={errno.EINVAL})


def _arena() -> bool:
    """Create an arena, as for the ring buffer; the map needs a flag, so an object defines it."""

    def step() -> None:
        with steps.loaded(steps.object_path("engine/probe_arena")):
            pass

    return _does(step, unsupported={errno.EINVAL})


def _cap_bpf() -> bool:
    """Create an LRU hash with CAP_BPF alone: privileged under every unprivileged_bpf_disabled, EPERM without."""
    if _does(lambda: without_capabilities(_create, _LRU_HASH), unsupported={errno.EPERM}):
        raise RuntimeError("an LRU hash could be created without any capability")
    return _does(lambda: with_only({Cap.BPF}, _create, _LRU_HASH), unsupported={errno.EPERM})


def _memcg_accounting() -> bool:
    """Create a map with a memlock limit of 0: without the feature, bpf_map_charge_init() returns EPERM.

    CAP_SYS_RESOURCE is left out because libbpf would use it to raise the limit.
    """

    def step() -> None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
        _create(_ARRAY)

    return _does(lambda: with_only({Cap.BPF, Cap.SYS_ADMIN}, step), unsupported={errno.EPERM})


def _unpriv_fd_commands() -> bool:
    """Look up a key through an inherited fd: EPERM when the sysctl closes all of bpf() for unprivileged processes."""
    if Path("/proc/sys/kernel/unprivileged_bpf_disabled").read_text().strip() == "0":
        raise RuntimeError("unprivileged BPF is enabled: the kernel cannot show this feature")
    fd = steps.create_map(_ARRAY)
    try:
        return _does(
            lambda: run_as(lambda: steps.lookup(fd, _ARRAY, key=0), caps=(), uid=NOBODY),
            unsupported={errno.EPERM},
        )
    finally:
        os.close(fd)


def _xdp_link() -> bool:
    """Before, BPF_LINK_CREATE answers EINVAL for the attach type."""

    def step() -> None:
        with (
            steps.loaded(steps.object_path("engine/probes"), "probe_xdp_link") as probe,
            steps.xdp_link(probe.programs["probe_xdp_link"], socket.if_nametoindex(_LO)),
        ):
            pass

    return _does(step, unsupported={errno.EINVAL})


def _tcx() -> bool:
    """Before, BPF_LINK_CREATE answers EINVAL for the attach type."""

    def step() -> None:
        with (
            steps.loaded(steps.object_path("engine/probes"), "probe_tcx") as probe,
            steps.tcx_link(probe.programs["probe_tcx"], socket.if_nametoindex(_LO)),
        ):
            pass

    return _does(step, unsupported={errno.EINVAL})


def _loads(program: str) -> bool:
    """Load a program: EINVAL for an unknown program type, flag or helper (bpf_prog_load(), check_helper_call())."""
    return _does(lambda: _load(program), unsupported={errno.EINVAL})


def _fentry() -> bool:
    """Attach by fentry: ENOTSUPP when the architecture has no trampoline (arch_prepare_bpf_trampoline())."""
    return _does(lambda: _attach_by_section("probe_fentry"), unsupported={errno.EINVAL, _ENOTSUPP})


def _kprobe_multi() -> bool:
    """Attach by kprobe.multi: EINVAL for an unknown attach type, EOPNOTSUPP without CONFIG_FPROBE."""

    def step() -> None:
        with (
            steps.loaded(steps.object_path("engine/probes"), "probe_kprobe_multi") as probe,
            ExitStack() as undo,
        ):
            bpf_calls.kprobe_multi_by_name(probe.programs["probe_kprobe_multi"].fd, "bpf_fentry_test1", undo)

    return _does(step, unsupported={errno.EINVAL, errno.EOPNOTSUPP})


def _bpf_token() -> bool:
    """Create a token with an invalid fd: EBADF from the command, EINVAL when bpf() does not know it."""
    try:
        steps.create_token(-1)
    except OSError as error:
        if error.errno == errno.EBADF:
            return True
        if error.errno == errno.EINVAL:
            return False
        raise
    raise RuntimeError("BPF_TOKEN_CREATE succeeded without a file")


def _lsm_active() -> bool:
    """Count bpf() calls in a program: reading its counter is one, and the hook runs before the read."""
    program = "probe_lsm_active"
    with (
        steps.loaded(steps.object_path("engine/probes"), program) as probe,
        steps.by_section(probe.programs[program]),
    ):
        counter = steps.MapSpec("array", key=4, value=8, entries=1)  # .bss holds just one __u64
        return int.from_bytes(steps.lookup(probe.maps["probes.bss"], counter, key=0), "little") > 0


def _perf_restrict() -> bool:
    """Attach a kprobe with CAP_PERFMON at perf_event_paranoid 3: EACCES when 3 reserves perf for CAP_SYS_ADMIN."""
    sysctl = Path("/proc/sys/kernel/perf_event_paranoid")
    before = sysctl.read_text()
    with steps.loaded(steps.object_path("engine/probes"), "probe_kprobe") as probe:

        def step() -> None:
            with steps.kprobe(probe.programs["probe_kprobe"], "do_nanosleep"):
                pass

        try:
            sysctl.write_text("3")
            return not _does(lambda: with_only({Cap.PERFMON}, step), unsupported={errno.EACCES})
        finally:
            sysctl.write_text(before)


def _ia32_emulation() -> bool:
    """Call getpid through the 32-bit entry in a child; a kernel without the entry kills it with SIGSEGV."""
    if not execs.HAS_32_BIT_ENTRY:
        return False
    try:
        right = run_as(lambda: execs.getpid32() == os.getpid(), caps=set(Cap))
    except ChildError as error:
        if error.status == -signal.SIGSEGV:
            return False
        raise
    if not right:
        raise RuntimeError("the 32-bit getpid gave another process id")
    return True


def _uninit_stack_read() -> bool:
    """Read uninitialised stack: without the feature, check_stack_read_fixed_off() returns EACCES."""

    def step() -> None:
        with verified("socket_filter", instructions.load("b", 0, 10, -1) + instructions.leave()):
            pass

    return _does(step, unsupported={errno.EACCES})


def _lookup_never_null() -> bool:
    """Use a looked-up value without a NULL check: without the feature, check_mem_access() returns EACCES."""
    fd = steps.create_map(_ARRAY)
    code = [
        instructions.store("w", 10, -4, 0),
        *(instructions.load_map(1, fd), instructions.copy(2, 10), instructions.add(2, -4)),
        *(instructions.call(1), instructions.load("w", 0, 0), instructions.leave()),  # 1: bpf_map_lookup_elem()
    ]

    def step() -> None:
        with verified("socket_filter", b"".join(code)):
            pass

    try:
        return _does(step, unsupported={errno.EACCES})
    finally:
        os.close(fd)


def _task_state_renamed() -> bool:
    """Look for the member in the kernel's own BTF."""
    with Btf.of_kernel() as kernel:
        return "__state" in kernel.names("task_struct")


def _bloom_filter() -> bool:
    """Create a bloom filter, which has no keys, as for the ring buffer."""
    return _does(lambda: _create(steps.MapSpec("bloom_filter", key=0, value=4, entries=1)), unsupported={errno.EINVAL})


def _xdp_test_run_runts() -> bool:
    """Run a program on 13 bytes, one less than a header: without the feature, bpf_test_init() returns EINVAL."""
    with verified("xdp", instructions.mov(0, 2) + instructions.leave()) as program:
        return _does(lambda: bpf_calls.test_run(program.fd, 13), unsupported={errno.EINVAL})


def _empty_string_counted() -> bool:
    """Read an empty string of this process: the length is 1 with the feature, 0 without."""
    text = ctypes.create_string_buffer(1)
    with steps.loaded(steps.object_path("engine/probes"), "probe_empty_string") as probe:
        program = probe.programs["probe_empty_string"]
        return bool(bpf_calls.test_run_raw_tracepoint(program.fd, ctypes.addressof(text)))


def _big_tcp() -> bool:
    """Ask the loopback interface how large an aggregate it takes: the attribute came with the feature.

    By ip(8): importing pyroute2 takes a guest longer than all other probes.
    """
    command = ["ip", "-details", "-json", "link", "show", _LO]
    (link,) = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return int(link.get("tso_max_size", 0)) > _AGGREGATE


def _tracepoint_preempted() -> bool:
    """Wake up, every half of a millisecond, on a processor on which a program takes its time.

    With the feature it is still inside, and ends soon after; without, it has ended before.
    """
    program, asked, inside, number = "probe_preempted", 0x70726F62, 1, 4

    def ask() -> None:
        with suppress(ProcessLookupError):
            os.getpgid(asked)

    with (
        steps.loaded(steps.object_path("engine/probe_preempted"), program) as probe,
        steps.tracepoint(probe.programs[program], "syscalls", "sys_enter_getpgid"),
        mmap.mmap(probe.maps["probe_pr.bss"], mmap.PAGESIZE) as variables,
        urgent(),
        beside(ask),
    ):
        stage = wait_until(lambda: variables[0], "the program's beginning")
        variables[number] = 1
        return stage == inside


PROBES: dict[str, Callable[[], bool]] = {
    "ringbuf": _ringbuf,
    "cap_bpf": _cap_bpf,
    "memcg_accounting": _memcg_accounting,
    "unpriv_fd_commands": _unpriv_fd_commands,
    "perf_restrict": _perf_restrict,
    "xdp_link": _xdp_link,
    "xdp_test_run_runts": _xdp_test_run_runts,
    "xdp_frags": lambda: _loads("probe_xdp_frags"),
    "tcx": _tcx,
    "netfilter": lambda: _loads("probe_netfilter"),
    "fentry": _fentry,
    "kprobe_multi": _kprobe_multi,
    "bpf_cookie": lambda: _loads("probe_bpf_cookie"),
    "bpf_loop": lambda: _loads("probe_bpf_loop"),
    "arena": _arena,
    "bpf_token": _bpf_token,
    "lsm_active": _lsm_active,
    "ia32_emulation": _ia32_emulation,
    "uninit_stack_read": _uninit_stack_read,
    "lookup_never_null": _lookup_never_null,
    "task_state_renamed": _task_state_renamed,
    "bloom_filter": _bloom_filter,
    "empty_string_counted": _empty_string_counted,
    "big_tcp": _big_tcp,
    "tracepoint_preempted": _tracepoint_preempted,
}
"""Feature of features.toml -> the probe that decides whether the running kernel has it."""
