// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// An LRU hash that is to be made without its elements.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
struct { __uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(max_entries, 8); __type(key, __u32); __type(value, __u64); __uint(map_flags, BPF_F_NO_PREALLOC); } recent SEC(".maps");
SEC("xdp") int with_lru(struct xdp_md *ctx) { __u32 k = 0; return bpf_map_lookup_elem(&recent, &k) ? XDP_PASS : XDP_DROP; }
char LICENSE[] SEC("license") = "GPL";
