"""libbpf as a C library: loaded once, its functions declared, its option structures, its messages and its errors."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from ctypes import POINTER, c_bool, c_char_p, c_int, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p

#: enum libbpf_errno of libbpf's libbpf.h, which begins at 4000
LIBBPF_ERRORS = {
    4000 + number: f"LIBBPF_ERRNO__{name}"
    for number, name in enumerate(
        "LIBELF FORMAT KVERSION ENDIAN INTERNAL RELOC LOAD VERIFY PROG2BIG KVER PROGTYPE WRNGPID INVSEQ NLPARSE".split()  # noqa: SIM905
    )
}

_STDERR = 2


class XdpAttachOpts(ctypes.Structure):
    """struct bpf_xdp_attach_opts of libbpf's bpf.h."""

    _fields_ = (("sz", c_size_t), ("old_prog_fd", c_int))


class XdpQueryOpts(ctypes.Structure):
    """struct bpf_xdp_query_opts of libbpf's bpf.h, up to the attach mode.

    Without the newer fields libbpf does not ask for the generic netlink family `netdev`, for which a
    kernel that has none runs modprobe: a second for each query.
    """

    _fields_ = (
        ("sz", c_size_t),
        ("prog_id", c_uint32),
        ("drv_prog_id", c_uint32),
        ("hw_prog_id", c_uint32),
        ("skb_prog_id", c_uint32),
        ("attach_mode", c_uint8),
    )


class ProgLoadOpts(ctypes.Structure):
    """struct bpf_prog_load_opts of libbpf 1.5's bpf.h."""

    _fields_ = (
        ("sz", c_size_t),
        ("attempts", c_int),
        ("expected_attach_type", c_int),
        ("prog_btf_fd", c_uint32),
        ("prog_flags", c_uint32),
        ("prog_ifindex", c_uint32),
        ("kern_version", c_uint32),
        ("attach_btf_id", c_uint32),
        ("attach_prog_fd", c_uint32),
        ("attach_btf_obj_fd", c_uint32),
        ("fd_array", c_void_p),
        ("func_info", c_void_p),
        ("func_info_cnt", c_uint32),
        ("func_info_rec_size", c_uint32),
        ("line_info", c_void_p),
        ("line_info_cnt", c_uint32),
        ("line_info_rec_size", c_uint32),
        ("log_level", c_uint32),
        ("log_size", c_uint32),
        ("log_buf", c_char_p),
        ("log_true_size", c_uint32),
        ("token_fd", c_uint32),
    )


class MapCreateOpts(ctypes.Structure):
    """struct bpf_map_create_opts of libbpf 1.5's bpf.h."""

    _fields_ = (
        ("sz", c_size_t),
        ("btf_fd", c_uint32),
        ("btf_key_type_id", c_uint32),
        ("btf_value_type_id", c_uint32),
        ("btf_vmlinux_value_type_id", c_uint32),
        ("inner_map_fd", c_uint32),
        ("map_flags", c_uint32),
        ("map_extra", c_uint64),
        ("numa_node", c_uint32),
        ("map_ifindex", c_uint32),
        ("value_type_btf_obj_fd", c_int),
        ("token_fd", c_uint32),
    )


class TestRunOpts(ctypes.Structure):
    """struct bpf_test_run_opts of libbpf's bpf.h."""

    _fields_ = (
        ("sz", c_size_t),
        ("data_in", c_void_p),
        ("data_out", c_void_p),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("ctx_in", c_void_p),
        ("ctx_out", c_void_p),
        ("ctx_size_in", c_uint32),
        ("ctx_size_out", c_uint32),
        ("retval", c_uint32),
        ("repeat", c_int),
        ("duration", c_uint32),
        ("flags", c_uint32),
        ("cpu", c_uint32),
        ("batch_size", c_uint32),
    )


def _library() -> ctypes.CDLL:
    """Load libbpf and declare what is used of it: pointers are returned whole, errno is kept."""
    lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    pointer_results = {
        "bpf_object__open_file": [c_char_p, c_void_p],
        "bpf_object__next_program": [c_void_p, c_void_p],
        "bpf_object__next_map": [c_void_p, c_void_p],
        "bpf_program__insns": [c_void_p],
        "bpf_program__attach": [c_void_p],
        "bpf_program__attach_xdp": [c_void_p, c_int],
        "bpf_program__attach_tcx": [c_void_p, c_int, c_void_p],
        "bpf_program__attach_kprobe": [c_void_p, c_bool, c_char_p],
        "bpf_program__attach_tracepoint": [c_void_p, c_char_p, c_char_p],
    }
    int_results = {
        "bpf_object__load": [c_void_p],
        "bpf_program__set_autoload": [c_void_p, c_bool],
        "bpf_program__fd": [c_void_p],
        "bpf_program__set_log_level": [c_void_p, c_uint32],
        "bpf_program__set_log_buf": [c_void_p, c_char_p, c_size_t],
        "bpf_obj_get_info_by_fd": [c_int, c_void_p, c_void_p],
        "bpf_program__type": [c_void_p],
        "bpf_map__fd": [c_void_p],
        "bpf_map__type": [c_void_p],
        "bpf_map__key_size": [c_void_p],
        "bpf_map__value_size": [c_void_p],
        "bpf_map__max_entries": [c_void_p],
        "bpf_map_create": [c_int, c_char_p, c_uint32, c_uint32, c_uint32, c_void_p],
        "bpf_map_lookup_elem": [c_int, c_void_p, c_void_p],
        "bpf_prog_load": [c_int, c_char_p, c_char_p, c_void_p, c_size_t, c_void_p],
        "bpf_link__destroy": [c_void_p],
        "libbpf_strerror": [c_int, c_char_p, c_size_t],
        "bpf_obj_pin": [c_int, c_char_p],
        "bpf_obj_get": [c_char_p],
        "bpf_prog_get_next_id": [c_uint32, POINTER(c_uint32)],
        "bpf_map_get_next_id": [c_uint32, POINTER(c_uint32)],
        "bpf_link_get_next_id": [c_uint32, POINTER(c_uint32)],
        "bpf_program__pin": [c_void_p, c_char_p],
        "bpf_token_create": [c_int, c_void_p],
        "bpf_xdp_attach": [c_int, c_int, c_uint32, c_void_p],
        "bpf_xdp_detach": [c_int, c_uint32, c_void_p],
        "bpf_xdp_query": [c_int, c_int, POINTER(XdpQueryOpts)],
    }
    for names, result in ((pointer_results, c_void_p), (int_results, c_int)):
        for name, arguments in names.items():
            # a machine's libbpf may be too old for some: they are an error when they are used
            function = getattr(lib, name, None)
            if function is None:
                continue
            function.argtypes, function.restype = arguments, result
    for name in (
        *("bpf_program__name", "bpf_program__section_name", "bpf_map__name"),
        *("libbpf_bpf_map_type_str", "libbpf_bpf_prog_type_str"),
    ):
        getattr(lib, name).argtypes = [c_int if name.endswith("_str") else c_void_p]
        getattr(lib, name).restype = c_char_p
    lib.bpf_object__close.argtypes, lib.bpf_object__close.restype = [c_void_p], None
    lib.bpf_program__insn_cnt.argtypes, lib.bpf_program__insn_cnt.restype = [c_void_p], c_size_t
    return lib


@contextmanager
def speaking() -> Generator[Callable[[], str]]:
    """Give a function that returns what libbpf has said since, with the verifier's log, for a StepError's log.

    libbpf writes to the standard error stream, which is a file of memory for so long. Its own printer is the one that
    leaves out what it does step by step (libbpf.c, __base_pr()): that is 1098 lines for the network monitor, and a
    printer of ours would be called for each, which took a tenth of the time of loading it where Python is emulated.
    """
    said = os.memfd_create("libbpf")
    usual = os.dup(_STDERR)
    os.dup2(said, _STDERR)
    try:
        yield lambda: os.pread(said, os.fstat(said).st_size, 0).decode(errors="replace")
    finally:
        os.dup2(usual, _STDERR)
        os.close(usual)
        os.close(said)


_cached: list[ctypes.CDLL] = []


def libbpf() -> ctypes.CDLL:
    """Return libbpf, loaded on first use: collecting tests on a host needs none."""
    if not _cached:
        _cached.append(_library())
    return _cached[0]


def strerror(number: int) -> str:
    """Say what an errno means, the kernel's or one of libbpf's own."""
    if number not in LIBBPF_ERRORS:
        return os.strerror(number)
    text = ctypes.create_string_buffer(128)
    libbpf().libbpf_strerror(number, text, len(text))
    return text.value.decode()
