// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Dynamic pointers (5.19) and a map of timers nobody starts.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
SEC("tracepoint/syscalls/sys_enter_getpgid")
int reserves(void *ctx)
{
	struct bpf_dynptr p;
	bpf_ringbuf_reserve_dynptr(&ring, 8, 0, &p);
	bpf_ringbuf_discard_dynptr(&p, 0);
	return 0;
}
char LICENSE[] SEC("license") = "GPL";
