// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Replaces functions of another object; both are declared.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
SEC("freplace/chosen") int replacing(struct xdp_md *ctx) { return XDP_DROP; }
char LICENSE[] SEC("license") = "GPL";
