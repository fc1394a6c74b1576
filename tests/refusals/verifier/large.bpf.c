// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A loop that forks the verifier's state in each turn.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
__u64 sum;
SEC("tracepoint/syscalls/sys_enter_getpgid")
int million(void *ctx)
{
	__u64 x = bpf_ktime_get_ns();
	for (int i = 0; i < 20000; i++) {
		x = x * 3 + i;
		if (x & 1) x ^= 0x55;
	}
	sum = x;
	return 0;
}
char LICENSE[] SEC("license") = "GPL";
