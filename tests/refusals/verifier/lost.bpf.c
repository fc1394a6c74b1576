// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Locks and records that are kept, pointers that are none any more, maps that a helper does not take. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

struct locked {
	struct bpf_spin_lock lock;
	int number;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, int);
	__type(value, struct locked);
} locks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, 16);
	__uint(key_size, 4);
	__uint(value_size, 80);
} stacks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} records SEC(".maps");

SEC("tc")
int never_unlocked(struct __sk_buff *ctx)
{
	int key = 0;
	struct locked *value = bpf_map_lookup_elem(&locks, &key);

	if (!value)
		return 0;
	bpf_spin_lock(&value->lock);
	value->number++;
	return 0;
}

SEC("tc")
int calls_in_lock(struct __sk_buff *ctx)
{
	int key = 0;
	struct locked *value = bpf_map_lookup_elem(&locks, &key);

	if (!value)
		return 0;
	bpf_spin_lock(&value->lock);
	value->number = bpf_ktime_get_ns();
	bpf_spin_unlock(&value->lock);
	return 0;
}

SEC("tc")
int never_submitted(struct __sk_buff *ctx)
{
	int *record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);

	if (record)
		*record = 1;
	return 0;
}

SEC("kprobe/do_nanosleep")
int looks_up_stacks(void *ctx)
{
	int key = 0;

	return bpf_map_lookup_elem(&stacks, &key) != 0;
}

SEC("tc")
int moved_packet(struct __sk_buff *ctx)
{
	char *data = (char *)(long)ctx->data, *end = (char *)(long)ctx->data_end;

	if (data + 14 > end)
		return 0;
	bpf_skb_pull_data(ctx, 40);
	return data[0];
}

SEC("tc")
int short_key(struct __sk_buff *ctx)
{
	char key = 0;

	return bpf_map_lookup_elem(&locks, &key) != 0;
}

SEC("kprobe/do_nanosleep")
int overrides(struct pt_regs *ctx)
{
	return bpf_override_return(ctx, -1);
}
