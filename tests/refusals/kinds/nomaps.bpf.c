// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compiled with: -g0
// Compiled without -g, and without maps: no BTF is needed.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
SEC("xdp") int passing(struct xdp_md *ctx) { return XDP_PASS; }
char LICENSE[] SEC("license") = "GPL";
