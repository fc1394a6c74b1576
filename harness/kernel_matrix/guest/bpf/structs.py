"""The structures that libbpf's functions take, as its headers declare them."""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_char_p, c_int, c_int32, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p


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


class TcHook(ctypes.Structure):
    """struct bpf_tc_hook of libbpf.h."""

    _fields_ = (("sz", c_size_t), ("ifindex", c_int), ("attach_point", c_int), ("parent", c_uint32))


class TcOpts(ctypes.Structure):
    """struct bpf_tc_opts of libbpf.h."""

    _fields_ = (
        ("sz", c_size_t),
        ("prog_fd", c_int),
        ("flags", c_uint32),
        ("prog_id", c_uint32),
        ("handle", c_uint32),
        ("priority", c_uint32),
    )


class KprobeMultiOpts(ctypes.Structure):
    """struct bpf_link_create_opts of libbpf's bpf.h, with the kprobe_multi member of its union."""

    _fields_ = (
        ("sz", c_size_t),
        ("flags", c_uint32),
        ("iter_info", c_void_p),
        ("iter_info_len", c_uint32),
        ("target_btf_id", c_uint32),
        ("multi_flags", c_uint32),
        ("count", c_uint32),
        ("symbols", c_void_p),
        ("addresses", c_void_p),
        ("cookies", c_void_p),
    )


class BtfLoadOpts(ctypes.Structure):
    """struct bpf_btf_load_opts of libbpf 1.5's bpf.h."""

    _fields_ = (
        ("sz", c_size_t),
        ("log_buf", c_char_p),
        ("log_level", c_uint32),
        ("log_size", c_uint32),
        ("log_true_size", c_uint32),
        ("btf_flags", c_uint32),
        ("token_fd", c_uint32),
    )


class UprobeOpts(ctypes.Structure):
    """struct bpf_uprobe_opts of libbpf.h."""

    _fields_ = (
        ("sz", c_size_t),
        ("ref_ctr_offset", c_size_t),
        ("bpf_cookie", c_uint64),
        ("retprobe", c_bool),
        ("func_name", c_char_p),
    )


class NetfilterOpts(ctypes.Structure):
    """struct bpf_netfilter_opts of libbpf.h."""

    _fields_ = (("sz", c_size_t), ("pf", c_uint32), ("hooknum", c_uint32), ("priority", c_int32), ("flags", c_uint32))


class IterOpts(ctypes.Structure):
    """struct bpf_iter_attach_opts of libbpf.h; ``link_info`` points to a union bpf_iter_link_info."""

    _fields_ = (("sz", c_size_t), ("link_info", c_void_p), ("link_info_len", c_uint32))
