// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A type of programs that the kernels know by name and are built without. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

SEC("lirc_mode2")
int of_remotes(void *ctx)
{
	return 0;
}
