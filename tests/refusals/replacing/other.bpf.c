// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Replaces a function by one that takes something else.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
SEC("freplace/chosen") int another(struct xdp_md *ctx, int x) { return x; }
SEC("freplace/no_such_function") int of_nothing(struct xdp_md *ctx) { return XDP_DROP; }
char LICENSE[] SEC("license") = "GPL";
