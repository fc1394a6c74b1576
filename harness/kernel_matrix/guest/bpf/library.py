"""libbpf as a C library: loaded once, its functions declared in one place, with its messages and errors."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from ctypes import POINTER, c_bool, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any

from kernel_matrix.guest.bpf import structs
from kernel_matrix.shared.errors import LIBBPF_ERRORS

_STDERR = 2


#: int (*ring_buffer_sample_fn)(void *ctx, void *data, size_t size)
SAMPLE = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_size_t)
#: void (*perf_buffer_sample_fn)(void *ctx, int cpu, void *data, __u32 size), and perf_buffer_lost_fn
PERF_SAMPLE = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_void_p, c_uint32)
PERF_LOST = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_uint64)

#: the functions of libbpf that are used, by their result type; pointers are not truncated to an int
_FUNCTIONS: dict[Any, dict[str, list[Any]]] = {
    c_void_p: {
        "bpf_object__open_file": [c_char_p, c_void_p],
        "bpf_object__next_program": [c_void_p, c_void_p],
        "bpf_object__next_map": [c_void_p, c_void_p],
        "bpf_object__btf": [c_void_p],
        "bpf_object__find_map_by_name": [c_void_p, c_char_p],
        "bpf_object__find_program_by_name": [c_void_p, c_char_p],
        "bpf_program__insns": [c_void_p],
        "bpf_program__attach": [c_void_p],
        "bpf_program__attach_xdp": [c_void_p, c_int],
        "bpf_program__attach_tcx": [c_void_p, c_int, c_void_p],
        "bpf_program__attach_kprobe": [c_void_p, c_bool, c_char_p],
        "bpf_program__attach_tracepoint": [c_void_p, c_char_p, c_char_p],
        "bpf_program__attach_uprobe_opts": [c_void_p, c_int, c_char_p, c_size_t, POINTER(structs.UprobeOpts)],
        "bpf_program__attach_usdt": [c_void_p, c_int, c_char_p, c_char_p, c_char_p, c_void_p],
        "bpf_program__attach_kprobe_multi_opts": [c_void_p, c_char_p, c_void_p],
        "bpf_program__attach_uprobe_multi": [c_void_p, c_int, c_char_p, c_char_p, c_void_p],
        "bpf_program__attach_raw_tracepoint": [c_void_p, c_char_p],
        "bpf_program__attach_perf_event": [c_void_p, c_int],
        "bpf_program__attach_cgroup": [c_void_p, c_int],
        "bpf_program__attach_netns": [c_void_p, c_int],
        "bpf_program__attach_netkit": [c_void_p, c_int, c_void_p],
        "bpf_program__attach_netfilter": [c_void_p, POINTER(structs.NetfilterOpts)],
        "bpf_program__attach_iter": [c_void_p, POINTER(structs.IterOpts)],
        "bpf_map__attach_struct_ops": [c_void_p],
        "bpf_map__inner_map": [c_void_p],
        "bpf_map__initial_value": [c_void_p, POINTER(c_size_t)],
        "btf__load_vmlinux_btf": [],
        "libbpf_set_print": [c_void_p],
        "btf__type_by_id": [c_void_p, c_uint32],
        "ring_buffer__new": [c_int, SAMPLE, c_void_p, c_void_p],
        "perf_buffer__new": [c_int, c_size_t, PERF_SAMPLE, PERF_LOST, c_void_p, c_void_p],
    },
    c_int: {
        "bpf_object__load": [c_void_p],
        "bpf_program__set_autoload": [c_void_p, c_bool],
        "bpf_program__autoload": [c_void_p],
        "bpf_program__set_type": [c_void_p, c_int],
        "bpf_program__set_expected_attach_type": [c_void_p, c_int],
        "bpf_program__set_attach_target": [c_void_p, c_int, c_char_p],
        "bpf_iter_create": [c_int],
        "bpf_link__fd": [c_void_p],
        "bpf_program__fd": [c_void_p],
        "bpf_program__set_log_level": [c_void_p, c_uint32],
        "bpf_program__set_log_buf": [c_void_p, c_char_p, c_size_t],
        "bpf_program__type": [c_void_p],
        "bpf_program__expected_attach_type": [c_void_p],
        "bpf_program__set_flags": [c_void_p, c_uint32],
        "bpf_program__pin": [c_void_p, c_char_p],
        "bpf_map__fd": [c_void_p],
        "bpf_map__set_autocreate": [c_void_p, c_bool],
        "bpf_map__set_type": [c_void_p, c_int],
        "bpf_map__set_pin_path": [c_void_p, c_char_p],
        "bpf_map__set_inner_map_fd": [c_void_p, c_int],
        "bpf_map__is_internal": [c_void_p],
        "bpf_map__type": [c_void_p],
        "bpf_map__set_max_entries": [c_void_p, c_uint32],
        "bpf_map__set_value_size": [c_void_p, c_uint32],
        "bpf_map_create": [c_int, c_char_p, c_uint32, c_uint32, c_uint32, c_void_p],
        "bpf_map_lookup_elem": [c_int, c_void_p, c_void_p],
        "bpf_map_update_elem": [c_int, c_void_p, c_void_p, c_uint64],
        "bpf_map_get_next_key": [c_int, c_void_p, c_void_p],
        "bpf_map_get_next_id": [c_uint32, POINTER(c_uint32)],
        "bpf_map_get_fd_by_id": [c_uint32],
        "bpf_prog_load": [c_int, c_char_p, c_char_p, c_void_p, c_size_t, c_void_p],
        "bpf_prog_attach": [c_int, c_int, c_int, c_uint32],
        "bpf_prog_detach2": [c_int, c_int, c_int],
        "bpf_prog_query": [c_int, c_int, c_uint32, c_void_p, c_void_p, POINTER(c_uint32)],
        "bpf_prog_test_run_opts": [c_int, POINTER(structs.TestRunOpts)],
        "bpf_prog_get_next_id": [c_uint32, POINTER(c_uint32)],
        "bpf_prog_get_fd_by_id": [c_uint32],
        "bpf_link_create": [c_int, c_int, c_int, c_void_p],
        "bpf_link__destroy": [c_void_p],
        "bpf_link_get_next_id": [c_uint32, POINTER(c_uint32)],
        "bpf_raw_tracepoint_open": [c_char_p, c_int],
        "bpf_obj_pin": [c_int, c_char_p],
        "bpf_obj_get": [c_char_p],
        "bpf_obj_get_info_by_fd": [c_int, c_void_p, POINTER(c_uint32)],
        "bpf_btf_load": [c_char_p, c_size_t, c_void_p],
        "bpf_token_create": [c_int, c_void_p],
        "bpf_xdp_attach": [c_int, c_int, c_uint32, c_void_p],
        "bpf_xdp_detach": [c_int, c_uint32, c_void_p],
        "bpf_xdp_query": [c_int, c_int, POINTER(structs.XdpQueryOpts)],
        "bpf_tc_hook_create": [POINTER(structs.TcHook)],
        "bpf_tc_hook_destroy": [POINTER(structs.TcHook)],
        "bpf_tc_attach": [POINTER(structs.TcHook), POINTER(structs.TcOpts)],
        "btf__find_by_name_kind": [c_void_p, c_char_p, c_uint32],
        "libbpf_num_possible_cpus": [],
        "libbpf_probe_bpf_prog_type": [c_int, c_void_p],
        "libbpf_prog_type_by_name": [c_char_p, POINTER(c_int), POINTER(c_int)],
        "libbpf_strerror": [c_int, c_char_p, c_size_t],
        "ring_buffer__consume": [c_void_p],
        "perf_buffer__consume": [c_void_p],
    },
    c_char_p: {
        "bpf_program__name": [c_void_p],
        "bpf_program__section_name": [c_void_p],
        "bpf_map__name": [c_void_p],
        "bpf_map__pin_path": [c_void_p],
        "btf__name_by_offset": [c_void_p, c_uint32],
        "libbpf_bpf_map_type_str": [c_int],
        "libbpf_bpf_prog_type_str": [c_int],
        "libbpf_bpf_attach_type_str": [c_int],
        "libbpf_version_string": [],
    },
    c_uint32: {
        "bpf_program__flags": [c_void_p],
        "bpf_map__key_size": [c_void_p],
        "bpf_map__value_size": [c_void_p],
        "bpf_map__max_entries": [c_void_p],
        "bpf_map__map_flags": [c_void_p],
    },
    c_size_t: {"bpf_program__insn_cnt": [c_void_p]},
    None: {
        "bpf_object__close": [c_void_p],
        "bpf_program__set_ifindex": [c_void_p, c_uint32],
        "btf__free": [c_void_p],
        "ring_buffer__free": [c_void_p],
        "perf_buffer__free": [c_void_p],
    },
}


def _library() -> ctypes.CDLL:
    """Load libbpf and declare the functions that are used; ctypes keeps errno."""
    lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    for result, functions in _FUNCTIONS.items():
        for name, arguments in functions.items():
            # an older libbpf may lack some of them; using one of those is an error
            if (function := getattr(lib, name, None)) is not None:
                function.argtypes, function.restype = arguments, result
    return lib


@contextmanager
def captured_messages() -> Generator[Callable[[], str]]:
    """Capture libbpf's messages, with the verifier's log; yield a function that returns those so far.

    libbpf writes to the standard error stream, which is a memory file during the block. libbpf's own printer drops
    debug messages (libbpf.c, __base_pr()): 1098 lines for the network monitor. A printer in Python would be called for
    each of them, which took a tenth of the time of loading that object under emulation.
    """
    file = os.memfd_create("libbpf")
    stderr = os.dup(_STDERR)
    os.dup2(file, _STDERR)
    try:
        yield lambda: os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace")
    finally:
        os.dup2(stderr, _STDERR)
        os.close(stderr)
        os.close(file)


_cached: list[ctypes.CDLL] = []


def libbpf() -> ctypes.CDLL:
    """Return libbpf; it is loaded on first use, because collecting tests on a host does not need it."""
    if not _cached:
        _cached.append(_library())
    return _cached[0]


def types_of_section(section: str) -> tuple[int, int] | None:
    """Return the numbers of the program type and the attach type of a section; None: libbpf knows no such section."""
    kind, attach = c_int(), c_int()
    result = libbpf().libbpf_prog_type_by_name(section.encode(), ctypes.byref(kind), ctypes.byref(attach))
    return None if result < 0 else (kind.value, attach.value)


@functools.cache
def strerror(number: int) -> str:
    """Describe an errno of the kernel, or one of libbpf's own."""
    if number not in LIBBPF_ERRORS:
        return os.strerror(number)
    text = ctypes.create_string_buffer(128)
    libbpf().libbpf_strerror(number, text, len(text))
    return text.value.decode()
