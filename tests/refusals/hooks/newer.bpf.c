// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Hooks of later kernels.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
SEC("sk_skb/verdict") int on_verdict(struct __sk_buff *skb) { return SK_PASS; }
SEC("sk_reuseport/migrate") int on_migrate(struct sk_reuseport_md *md) { return SK_PASS; }
SEC("cgroup/connect_unix") int on_unix(struct bpf_sock_addr *ctx) { return 1; }
SEC("kprobe.session/do_nanosleep") int on_session(struct pt_regs *ctx) { return 0; }
SEC("iter.s/task") int on_sleepable_task(struct bpf_iter__task *ctx) { return 0; }
SEC("iter/unix") int on_unix_sockets(struct bpf_iter__unix *ctx) { return 0; }
SEC("iter/ksym") int on_symbols(struct bpf_iter__ksym *ctx) { return 0; }
SEC("iter/tcp") int on_tcp(struct bpf_iter__tcp *ctx) { return 0; }
SEC("lwt_seg6local") int on_seg6(struct __sk_buff *skb) { return 0; }
SEC("raw_tp.w/sys_enter") int on_writable(void *ctx) { return 0; }
SEC("uprobe.s/libc.so.6:getpid") int on_sleepable_uprobe(struct pt_regs *ctx) { return 0; }
char LICENSE[] SEC("license") = "GPL";
