// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Connects to IPv4 addresses, counted by address and port; port 81 is refused.
#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#ifndef PORT
#define PORT(port) (port)
#endif

struct peer {
	__be32 address;
	__be16 port;
	__u16 protocol;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, struct peer);
	__type(value, __u64);
} peers SEC(".maps");

SEC("cgroup/connect4")
int on_connect(struct bpf_sock_addr *ctx)
{
	struct peer peer = {
		.address = ctx->user_ip4,
		.port = PORT(ctx->user_port),
		.protocol = ctx->protocol,
	};
	__u64 one = 1, *seen = bpf_map_lookup_elem(&peers, &peer);

	if (seen)
		__sync_fetch_and_add(seen, 1);
	else
		bpf_map_update_elem(&peers, &peer, &one, BPF_NOEXIST);
	return ctx->user_port != bpf_htons(81);
}

char LICENSE[] SEC("license") = "GPL";
