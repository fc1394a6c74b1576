// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// compiled with: -mcpu=v3
// Instructions that came with 5.12 (compiled with -mcpu=v3).
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
__u64 total;
SEC("tracepoint/syscalls/sys_enter_getpgid")
int fetches(void *ctx) { return __sync_fetch_and_add(&total, 1) == 7; }
SEC("tracepoint/syscalls/sys_enter_getsid")
int compares(void *ctx) { return __sync_val_compare_and_swap(&total, 1, 2) == 7; }
char LICENSE[] SEC("license") = "GPL";
