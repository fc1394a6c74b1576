// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Hooks that came later.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
SEC("netfilter") int on_netfilter(struct bpf_nf_ctx *ctx) { return 1; }
SEC("kprobe.multi/vfs_rea*") int on_multi(struct pt_regs *ctx) { return 0; }
SEC("uprobe.multi/libc.so.6:getpi*") int on_umulti(struct pt_regs *ctx) { return 0; }
SEC("lsm_cgroup/socket_bind") int BPF_PROG(on_lsm_cgroup, struct socket *sock) { return 1; }
SEC("iter/cgroup") int on_cgroup(struct bpf_iter__cgroup *ctx) { return 0; }
SEC("netkit/peer") int on_peer(struct __sk_buff *skb) { return -1; }
char LICENSE[] SEC("license") = "GPL";
