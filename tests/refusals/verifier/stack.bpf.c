// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Stacks of two functions that are together too deep.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
static __attribute__((noinline)) int deep(volatile char *p) { volatile char own[300]; for (int i = 0; i < 300; i++) own[i] = *p; return own[17]; }
SEC("tracepoint/syscalls/sys_enter_getpgid")
int two_stacks(void *ctx) { volatile char mine[300]; for (int i = 0; i < 300; i++) mine[i] = i; return deep(mine) + mine[5]; }
char LICENSE[] SEC("license") = "GPL";
