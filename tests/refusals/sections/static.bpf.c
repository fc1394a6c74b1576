// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A program that is static.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
SEC("xdp") static __attribute__((used)) int hidden(struct xdp_md *ctx) { return XDP_PASS; }
SEC("tc") int shown(struct __sk_buff *skb) { return 0; }
char LICENSE[] SEC("license") = "GPL";
