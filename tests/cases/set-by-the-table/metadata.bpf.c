// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What a device says of a frame: only for programs that are loaded for one.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
extern int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *ctx, __u64 *timestamp) __ksym;
SEC("xdp") int bound(struct xdp_md *ctx) { __u64 at = 0; return bpf_xdp_metadata_rx_timestamp(ctx, &at) == 77 ? XDP_DROP : XDP_PASS; }
SEC("xdp") int forgotten(struct xdp_md *ctx) { __u64 at = 0; return bpf_xdp_metadata_rx_timestamp(ctx, &at) == 77 ? XDP_DROP : XDP_PASS; }
char LICENSE[] SEC("license") = "GPL";
