// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Names that older libbpf and other loaders took.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
SEC("xdp/my_filter") int named_xdp(struct xdp_md *ctx) { return XDP_PASS; }
SEC("classifier/ingress") int named_tc(struct __sk_buff *skb) { return 0; }
SEC("socket/http") int named_socket(struct __sk_buff *skb) { return 0; }
SEC("cgroup_skb") int half_named(struct __sk_buff *skb) { return 1; }
SEC("fentry") int BPF_PROG(bare_fentry) { return 0; }
SEC("kprobe__tcp_connect") int of_bcc(struct pt_regs *ctx) { return 0; }
SEC("prog") int of_nobody(struct __sk_buff *skb) { return 0; }
char LICENSE[] SEC("license") = "GPL";
