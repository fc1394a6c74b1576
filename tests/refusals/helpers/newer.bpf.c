// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Helpers that came later, that no kernel has, or that a type of programs may not call.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
static int each(__u32 i, void *ctx) { return 0; }
SEC("tracepoint/syscalls/sys_enter_getpgid") int with_loop(void *ctx) { bpf_loop(4, each, 0, 0); return 0; }
SEC("tracepoint/syscalls/sys_enter_getsid") int with_tai(void *ctx) { return bpf_ktime_get_tai_ns() == 1; }
SEC("xdp") int in_xdp(struct xdp_md *ctx) { return bpf_get_current_task() ? XDP_PASS : XDP_DROP; }
SEC("socket") int not_for_filters(struct __sk_buff *skb) { return bpf_redirect(1, 0); }
SEC("fentry/do_nanosleep") int BPF_PROG(sleeps_not) { char c; return bpf_copy_from_user(&c, 1, 0); }
SEC("tracepoint/syscalls/sys_enter_getppid") int nobody_has_it(void *ctx) { return ((long (*)(void))9999)(); }
char LICENSE[] SEC("license") = "GPL";
