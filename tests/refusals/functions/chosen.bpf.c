// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The table names their functions: one that no kernel has, and one of a module, whose BTF 5.10 does not have. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

SEC("fentry")
int on_nothing(void *ctx)
{
	return 0;
}

SEC("fentry/placeholder")
int on_module(void *ctx)
{
	return 0;
}
