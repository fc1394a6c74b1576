// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Flags and sizes that no kernel takes of this type, and those that some take.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __uint(max_entries, 8); __uint(key_size, 8); __uint(value_size, 8); } trie SEC(".maps");
SEC("xdp") int with_trie(struct xdp_md *ctx) { __u64 k = 0; return bpf_map_lookup_elem(&trie, &k) ? XDP_PASS : XDP_DROP; }
char LICENSE[] SEC("license") = "GPL";
