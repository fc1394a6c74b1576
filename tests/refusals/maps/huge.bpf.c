// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A hash of 2^31 elements.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1u << 31); __type(key, __u64); __type(value, __u64[8]); } everything SEC(".maps");
SEC("xdp") int with_huge(struct xdp_md *ctx) { __u64 k = 0; return bpf_map_lookup_elem(&everything, &k) ? XDP_PASS : XDP_DROP; }
char LICENSE[] SEC("license") = "GPL";
