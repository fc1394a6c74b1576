// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What is replaced.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
__attribute__((noinline)) int chosen(struct xdp_md *ctx) { volatile int r = XDP_PASS; return r; }
SEC("xdp") int entry(struct xdp_md *ctx) { return chosen(ctx); }
char LICENSE[] SEC("license") = "GPL";
