// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Bytes of the stack that were never set.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
SEC("raw_tp/sys_enter")
int unset_stack(void *ctx)
{
	char text[16];
	asm volatile ("" : "=m"(text));
	*(volatile char *)text = 0;
	bpf_trace_printk(text, sizeof(text));
	return 0;
}
char LICENSE[] SEC("license") = "GPL";
