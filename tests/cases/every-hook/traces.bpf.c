// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Traces programs of BPF: which ones, and by which name, only the loader knows.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
SEC("fentry/func") int BPF_PROG(before, struct xdp_buff *frame) { return 0; }
SEC("fexit") int BPF_PROG(after, struct xdp_buff *frame, int verdict) { return 0; }
SEC("xdp") int passing(struct xdp_md *ctx) { return XDP_PASS; }
char LICENSE[] SEC("license") = "GPL";
