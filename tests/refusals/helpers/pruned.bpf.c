// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A newer helper behind a constant that is 0: the verifier never sees the call.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
const volatile _Bool has_loop = 0;
static int each(__u32 i, void *ctx) { return 0; }
SEC("tracepoint/syscalls/sys_enter_getpgid")
int guarded(void *ctx)
{
	if (has_loop)
		bpf_loop(4, each, 0, 0);
	return 0;
}
SEC("tracepoint/syscalls/sys_enter_getsid")
int asked(void *ctx)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_loop))
		bpf_loop(4, each, 0, 0);
	return 0;
}
char LICENSE[] SEC("license") = "GPL";
