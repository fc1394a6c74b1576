// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Frames, counted by protocol on each processor, and by the port of a datagram.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#ifndef ONE
#define ONE 1
#endif

struct traffic {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct traffic);
} protocols SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __be16);
	__type(value, __u64);
} ports SEC(".maps");

__u64 frames;

SEC("xdp")
int count(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);
	struct traffic *traffic;
	__u64 one = 1, *seen;
	__u32 protocol;
	__be16 port;

	__sync_fetch_and_add(&frames, 1);
	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	protocol = ip->protocol;
	traffic = bpf_map_lookup_elem(&protocols, &protocol);
	if (traffic) {
		traffic->packets += ONE;
		traffic->bytes += end - data;
	}
	if (protocol != IPPROTO_UDP || (void *)(udp + 1) > end)
		return XDP_PASS;
	port = udp->dest;
	seen = bpf_map_lookup_elem(&ports, &port);
	if (seen)
		__sync_fetch_and_add(seen, 1);
	else
		bpf_map_update_elem(&ports, &port, &one, BPF_NOEXIST);
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "GPL";
