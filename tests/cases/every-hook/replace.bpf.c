// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Replaces a global function of another object.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
SEC("freplace/chosen") int replacing(struct xdp_md *ctx) { return XDP_DROP; }
SEC("freplace/chosen") int replacing_nothing(struct xdp_md *ctx) { return XDP_DROP; }
char LICENSE[] SEC("license") = "GPL";
