// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Variables and functions of the kernel that it may not have.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
extern const int no_such_variable __ksym;
extern const struct rq runqueues __ksym;
extern const void no_such_weak __ksym __weak;
extern unsigned CONFIG_NO_SUCH_OPTION __kconfig;
SEC("raw_tp/sys_enter") int strong(void *ctx) { return (long)&no_such_variable == 3; }
char LICENSE[] SEC("license") = "GPL";
