// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Tracepoints that are not there, or not by this name.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
SEC("tracepoint/sched/sched_swich") int misspelt(void *ctx) { return 0; }
SEC("tracepoint/syscalls/sys_enter_futex_waitv") int newer_call(void *ctx) { return 0; }
SEC("tracepoint/nosuchsystem/event") int no_system(void *ctx) { return 0; }
SEC("tp/sched_switch") int no_category(void *ctx) { return 0; }
SEC("raw_tp/sched_swich") int raw_misspelt(void *ctx) { return 0; }
SEC("raw_tp/block_rq_complete") int raw_fine(void *ctx) { return 0; }
char LICENSE[] SEC("license") = "GPL";
