// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A scheduler (6.12) that leaves all to the kernel.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
struct scx_exit_info;
// the kernel whose types the cases have is without sched_ext; libbpf matches members by their names
struct sched_ext_ops {
	void (*exit)(struct scx_exit_info *info);
	char name[128];
};
SEC("struct_ops/exit") void BPF_PROG(gone, struct scx_exit_info *info) { }
SEC(".struct_ops.link") struct sched_ext_ops idle = { .exit = (void *)gone, .name = "idle_one" };
char LICENSE[] SEC("license") = "GPL";
