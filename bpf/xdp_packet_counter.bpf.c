// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Counts every frame an interface receives, and passes it on: packets, bytes, IPv4, IPv6.
 *
 * The section is "xdp", not "xdp.frags": 5.10 knows no multi-buffer frames and refuses the flag, and one object
 * has to load everywhere. So data_end - data is always the whole frame: in native mode the kernel refuses the
 * attachment where a frame could be larger than one buffer, in generic mode it makes the frame linear first.
 */
#include "harness.bpf.h"
#include <bpf/bpf_endian.h>
#include "xdp_packet_counter.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct xdp_counters);
} counters SEC(".maps");

struct ethernet {
	__u8 destination[6];
	__u8 source[6];
	__be16 type;
};

SEC("xdp")
int xdp_packet_counter(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethernet *frame = data;
	struct xdp_counters *counter;
	__u32 key = 0;

	/* never NULL: the array has this one entry */
	counter = bpf_map_lookup_elem(&counters, &key);
	if (!counter)
		return XDP_PASS;

	counter->packets++;
	counter->bytes += end - data;
	if ((void *)(frame + 1) > end)
		return XDP_PASS;
	if (frame->type == bpf_htons(ETH_P_IP))
		counter->ipv4++;
	else if (frame->type == bpf_htons(ETH_P_IPV6))
		counter->ipv6++;
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
