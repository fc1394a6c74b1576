// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A timer in a value (5.15).
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
struct elem { struct bpf_timer timer; __u64 n; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, struct elem); } timers SEC(".maps");
static int fired(void *map, __u32 *key, struct elem *v) { v->n++; return 0; }
SEC("tc")
int starts(struct __sk_buff *skb)
{
	__u32 k = 0;
	struct elem *v = bpf_map_lookup_elem(&timers, &k);
	if (v) {
		bpf_timer_init(&v->timer, &timers, 1);
		bpf_timer_set_callback(&v->timer, fired);
	}
	return 0;
}
char LICENSE[] SEC("license") = "GPL";
