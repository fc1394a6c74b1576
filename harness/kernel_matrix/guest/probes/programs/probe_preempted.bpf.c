// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A program that takes its time, to probe whether others run meanwhile. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* the argument of the getpgid() that it is made for */
#define ASKED 0x70726f62
/* under emulation far longer than a timer's interrupt may be late on a busy machine */
#define ROUNDS 4000
#define BYTES  32768

char LICENSE[] SEC("license") = "GPL";

/* 1: inside of the program, 2: at its end */
volatile __u32 stage;
/* set by whoever preempts it */
volatile __u32 preempted;
char block[2][BYTES];

/* what kernel/trace/trace_syscalls.c gives a program at the beginning of a call, perf_call_bpf_enter() */
struct entered {
	__u64 regs;
	__s64 number;
	__u64 args[6];
};

SEC("tracepoint/syscalls/sys_enter_getpgid")
int probe_preempted(struct entered *ctx)
{
	int i;

	if (ctx->args[0] != ASKED)
		return 0;
	stage = 1;
	for (i = 0; i < ROUNDS && !preempted; i++)
		bpf_probe_read_kernel(block[0], BYTES, block[1]);
	stage = 2;
	return 0;
}
