// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A congestion control without what it must have.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
SEC("struct_ops/ssthresh") __u32 BPF_PROG(only_this, struct sock *sk) { return 2; }
SEC(".struct_ops") struct tcp_congestion_ops half = { .ssthresh = (void *)only_this, .name = "bpf_half" };
char LICENSE[] SEC("license") = "GPL";
