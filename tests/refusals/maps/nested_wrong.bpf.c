// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A map of maps whose inner map no kernel makes.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
struct inner { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __uint(max_entries, 4); __uint(key_size, 8); __uint(value_size, 8); };
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 2); __type(key, __u32); __array(values, struct inner); } outer SEC(".maps");
SEC("xdp") int looks(struct xdp_md *ctx) { __u32 k = 1; return bpf_map_lookup_elem(&outer, &k) ? XDP_DROP : XDP_PASS; }
char LICENSE[] SEC("license") = "GPL";
