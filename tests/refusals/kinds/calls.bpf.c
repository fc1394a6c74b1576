// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A tail call from a function of its own, and a function that is verified alone.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 2); __uint(key_size, 4); __uint(value_size, 4); } next SEC(".maps");
static __attribute__((noinline)) int jump(struct __sk_buff *skb) { bpf_tail_call(skb, &next, 0); return skb->len; }
SEC("tc") int jumps(struct __sk_buff *skb) { return jump(skb); }
struct pair { __u32 a, b; };
__attribute__((noinline)) int sum(struct pair *p) { return p ? p->a + p->b : 0; }
SEC("tc") int sums(struct __sk_buff *skb) { struct pair p = { skb->len, 2 }; return sum(&p); }
__attribute__((noinline)) int reads(struct __sk_buff *skb, __u64 *p) { return *p; }
SEC("tc") int unchecked(struct __sk_buff *skb) { __u64 v = skb->len; return reads(skb, &v); }
char LICENSE[] SEC("license") = "GPL";
