// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Security hooks: one whose program returns what it must not, a newer one, one that denies files to who attaches it.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
SEC("lsm/quotactl") int BPF_PROG(positive) { return 5; }
SEC("lsm/bpf_token_create") int BPF_PROG(newer_hook) { return 0; }
SEC("lsm/file_open")
int BPF_PROG(denying, struct file *file)
{
	char name[4] = {};

	bpf_probe_read_kernel_str(name, sizeof(name), BPF_CORE_READ(file, f_path.dentry, d_name.name));
	long denied = 0;
	// what a comparison becomes otherwise is an unknown number to 6.12
	if (name[0] == 'l' && name[1] == 's' && name[2] == 'm' && !name[3])
		asm volatile ("%0 = -1" : "=r"(denied));
	return denied;
}
char LICENSE[] SEC("license") = "GPL";
