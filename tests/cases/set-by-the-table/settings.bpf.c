// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What its loader sets.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
const volatile __u32 slots = 0;
__u16 pair[2] = { 1, 2 };
struct inner { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32); __type(value, __u64); } like SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __uint(max_entries, 4); __type(key, __u32); __type(value, __u32); } outer SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, __u64); __type(value, __u64); } tasks SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_STACK_TRACE); __uint(max_entries, 8); __type(key, __u32); } stacks SEC(".maps");
SEC("tc_ingress") int flows(struct __sk_buff *skb)
{
	__u64 key = pair[1], one = 1;
	__u32 k = 0;
	// only with slots == 3 does the verifier accept the program: another value leaves an endless loop
	for (__u32 i = 0; i != slots; i += 3)
		bpf_map_update_elem(&tasks, &key, &one, BPF_ANY);
	return bpf_map_lookup_elem(&outer, &k) != 0;
}
char LICENSE[] SEC("license") = "GPL";
