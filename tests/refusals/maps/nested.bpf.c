// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Maps of maps whose inner map the object says.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
struct inner { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32); __type(value, __u64); } first SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 2); __type(key, __u32); __array(values, struct inner); } outer SEC(".maps") = { .values = { [1] = &first } };
SEC("xdp") int looks(struct xdp_md *ctx) { __u32 k = 1; void *m = bpf_map_lookup_elem(&outer, &k); return m && bpf_map_lookup_elem(m, &k) ? XDP_DROP : XDP_PASS; }
char LICENSE[] SEC("license") = "GPL";
