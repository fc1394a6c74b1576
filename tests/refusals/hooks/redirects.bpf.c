// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Maps of interfaces and processors whose entries may hold programs, and those that may not. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, struct bpf_devmap_val);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bpf_cpumap_val);
} processors SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} plain SEC(".maps");

SEC("xdp")
int to_device(struct xdp_md *ctx)
{
	return bpf_redirect_map(&devices, 0, XDP_PASS);
}

SEC("xdp")
int to_processor(struct xdp_md *ctx)
{
	return bpf_redirect_map(&processors, 0, XDP_PASS);
}

SEC("xdp")
int to_plain_device(struct xdp_md *ctx)
{
	return bpf_redirect_map(&plain, 0, XDP_PASS);
}
