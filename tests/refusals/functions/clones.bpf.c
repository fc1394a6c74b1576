// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A function that compilers change on some kernels, and one that became static and was inlined.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
SEC("kprobe/finish_task_switch") int on_switched(struct pt_regs *ctx) { return 0; }
SEC("kprobe/account_page_dirtied") int on_dirtied(struct pt_regs *ctx) { return 0; }
SEC("fentry/finish_task_switch") int BPF_PROG(on_switched_typed) { return 0; }
char LICENSE[] SEC("license") = "GPL";
