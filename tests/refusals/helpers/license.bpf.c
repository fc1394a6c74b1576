// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A helper that only programs under the GPL may call.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
SEC("kprobe/do_nanosleep") int only_gpl(struct pt_regs *ctx) { __u64 v; return bpf_probe_read_kernel(&v, 8, ctx); }
SEC("xdp") int any(struct xdp_md *ctx) { return XDP_PASS; }
char LICENSE[] SEC("license") = "Apache-2.0";
