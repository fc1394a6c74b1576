// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The fourth argument of sched_switch came with 5.18.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
SEC("tp_btf/sched_switch")
int BPF_PROG(on_switch, bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int prev_state)
{
	return prev_state == 4242;
}
char LICENSE[] SEC("license") = "GPL";
