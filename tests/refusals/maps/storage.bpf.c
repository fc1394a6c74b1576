// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Local storage of tasks (5.11) and cgroups (6.2).
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
struct { __uint(type, BPF_MAP_TYPE_TASK_STORAGE); __uint(map_flags, BPF_F_NO_PREALLOC); __type(key, int); __type(value, __u64); } of_task SEC(".maps");
SEC("tp_btf/sys_enter")
int of_tasks(void *ctx) { struct task_struct *t = bpf_get_current_task_btf(); return bpf_task_storage_get(&of_task, t, 0, 1) != 0; }
char LICENSE[] SEC("license") = "GPL";
