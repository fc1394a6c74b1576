// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A tail-call table with programs of two types.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
int one(struct xdp_md *ctx);
int other(struct __sk_buff *skb);
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 2); __uint(key_size, 4); __array(values, int(void *)); } mixed SEC(".maps") = { .values = { [0] = (void *)&one, [1] = (void *)&other } };
SEC("xdp") int one(struct xdp_md *ctx) { bpf_tail_call(ctx, &mixed, 1); return XDP_PASS; }
SEC("tc") int other(struct __sk_buff *skb) { return 0; }
char LICENSE[] SEC("license") = "GPL";
