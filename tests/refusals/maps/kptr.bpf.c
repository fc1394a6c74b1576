// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A pointer of the kernel in a value (5.19).
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
#define __kptr __attribute__((btf_type_tag("kptr")))
struct elem { struct task_struct __kptr *task; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, struct elem); } tasks SEC(".maps");
SEC("tc")
int looks(struct __sk_buff *skb)
{
	__u32 k = 0;
	struct elem *v = bpf_map_lookup_elem(&tasks, &k);
	return v && v->task;
}
char LICENSE[] SEC("license") = "GPL";
