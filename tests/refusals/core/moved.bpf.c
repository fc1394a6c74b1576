// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Fields that are not where, or not what, they were.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
struct task_struct___before_5_14 { long state; } __attribute__((preserve_access_index));
struct no_such_struct { int x; } __attribute__((preserve_access_index));
SEC("tracepoint/syscalls/sys_enter_getpgid")
int old_field(void *ctx) { struct task_struct___before_5_14 *t = (void *)bpf_get_current_task(); return BPF_CORE_READ(t, state) == 77; }
SEC("tracepoint/syscalls/sys_enter_getsid")
int new_field(void *ctx) { struct task_struct *t = (void *)bpf_get_current_task(); return BPF_CORE_READ(t, __state) == 77; }
SEC("tracepoint/syscalls/sys_enter_getppid")
int either(void *ctx)
{
	struct task_struct *t = (void *)bpf_get_current_task();
	if (bpf_core_field_exists(t->__state))
		return BPF_CORE_READ(t, __state) == 77;
	return BPF_CORE_READ((struct task_struct___before_5_14 *)t, state) == 77;
}
SEC("tracepoint/syscalls/sys_enter_getuid")
int no_struct(void *ctx) { struct no_such_struct *t = (void *)bpf_get_current_task(); return BPF_CORE_READ(t, x); }
char LICENSE[] SEC("license") = "GPL";
