// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Functions of the kernel for programs, declared __weak: missing, for other types, with the wrong pointers. */
#include "vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "GPL";

struct bpf_cpumask *bpf_cpumask_create(void) __ksym __weak;
void bpf_cpumask_release(struct bpf_cpumask *cpumask) __ksym __weak;
struct task_struct *bpf_task_acquire(struct task_struct *task) __ksym __weak;
void bpf_task_release(struct task_struct *task) __ksym __weak;
struct task_struct *bpf_task_from_pid(s32 pid) __ksym __weak;
struct task_struct *bpf_task_from_vpid(s32 pid) __ksym __weak;

SEC("tp_btf/sched_process_exit")
int BPF_PROG(acquires, struct task_struct *task)
{
	struct task_struct *own = bpf_task_acquire(task);

	if (own)
		bpf_task_release(own);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(keeps, struct task_struct *task)
{
	return bpf_task_acquire(task) != 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(does_not_compare, struct task_struct *task)
{
	struct task_struct *own = bpf_task_from_pid(1);

	bpf_task_release(own);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(asks_first, struct task_struct *task)
{
	struct task_struct *own;

	if (!bpf_task_from_vpid)
		return 0;
	own = bpf_task_from_vpid(1);
	if (own)
		bpf_task_release(own);
	return 0;
}

SEC("kprobe/do_nanosleep")
int of_other_types(void *ctx)
{
	struct bpf_cpumask *own = bpf_cpumask_create();

	if (own)
		bpf_cpumask_release(own);
	return 0;
}
