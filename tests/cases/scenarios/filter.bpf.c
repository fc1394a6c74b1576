// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Frames with a mark of the first octet in a map of its loader's are dropped; both directions are counted.
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

enum direction { IN, OUT };

struct rule {
	__u8 dropped;
	__u8 reserved[3];
	__u32 limit;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u8);
	__type(value, struct rule);
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, enum direction);
	__type(value, __u64);
} frames SEC(".maps");

static __always_inline void count(enum direction direction)
{
	__u64 one = 1, *seen = bpf_map_lookup_elem(&frames, &direction);

	if (seen)
		__sync_fetch_and_add(seen, 1);
	else
		bpf_map_update_elem(&frames, &direction, &one, BPF_NOEXIST);
}

SEC("tc/ingress")
int in(struct __sk_buff *skb)
{
	struct rule *rule;
	__u8 first;

	if (bpf_skb_load_bytes(skb, 14, &first, 1))
		return TC_ACT_OK;
	rule = bpf_map_lookup_elem(&rules, &first);
	if (rule && rule->dropped && skb->len < rule->limit)
		return TC_ACT_SHOT;
	count(IN);
	return TC_ACT_OK;
}

SEC("tc/egress")
int out(struct __sk_buff *skb)
{
	count(OUT);
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "GPL";
