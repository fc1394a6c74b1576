// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Spin locks in programs that trace.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
struct value { struct bpf_spin_lock lock; __u64 n; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, struct value); } guarded SEC(".maps");
SEC("kprobe/do_nanosleep")
int locks(struct pt_regs *ctx) { __u32 k = 0; struct value *v = bpf_map_lookup_elem(&guarded, &k); if (v) { bpf_spin_lock(&v->lock); v->n++; bpf_spin_unlock(&v->lock); } return 0; }
SEC("tc")
int may_lock(struct __sk_buff *skb) { __u32 k = 0; struct value *v = bpf_map_lookup_elem(&guarded, &k); if (v) { bpf_spin_lock(&v->lock); v->n++; bpf_spin_unlock(&v->lock); } return 0; }
char LICENSE[] SEC("license") = "GPL";
