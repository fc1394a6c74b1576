// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// bpf_printk() with more than three arguments is another helper (5.16).
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
SEC("tracepoint/syscalls/sys_enter_getpgid") int four(void *ctx) { bpf_printk("%d %d %d %d", 1, 2, 3, 4); return 0; }
SEC("tracepoint/syscalls/sys_enter_getsid") int three(void *ctx) { bpf_printk("%d %d %d", 1, 2, 3); return 0; }
char LICENSE[] SEC("license") = "GPL";
