// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What every verifier refuses.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32); __type(value, __u64); } values SEC(".maps");
SEC("xdp") int without_check(struct xdp_md *ctx) { return *(__u8 *)(long)ctx->data; }
SEC("tc") int null_pointer(struct __sk_buff *skb) { __u32 k = 0; __u64 *v = bpf_map_lookup_elem(&values, &k); return *v; }
SEC("tracepoint/syscalls/sys_enter_getpgid")
int endless(void *ctx) { __u32 k = 0; while (1) { __u64 *v = bpf_map_lookup_elem(&values, &k); if (v && *v == 7) break; } return 0; }
SEC("tracepoint/syscalls/sys_enter_getsid")
int never_set(void *ctx) { long x; asm volatile ("%0 = r5" : "=r"(x)); return x; }
SEC("cgroup/connect4") int returns_two(struct bpf_sock_addr *ctx) { return 2; }
SEC("cgroup_skb/egress") int returns_nine(struct __sk_buff *skb) { return 9; }
SEC("tc")
int out_of_bounds(struct __sk_buff *skb) { __u32 k = 0; __u64 *v = bpf_map_lookup_elem(&values, &k); return v ? ((__u8 *)v)[skb->len] : 0; }
char LICENSE[] SEC("license") = "GPL";
