/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the programs read of the kernel's own structures: only the fields used, found by CO-RE. bcc has no CO-RE: it
 * compiles on the kernel that it loads into, with that kernel's headers (BCC is defined there).
 */
#ifndef HARNESS_BPF_H
#define HARNESS_BPF_H

#include <linux/types.h>
#ifndef BCC
#include <linux/bpf.h>
#endif
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#define ETH_P_IP   0x0800
#define ETH_P_IPV6 0x86DD

/*
 * Puts a struct that only ring buffer records use into the object's BTF, where readers take its layout from.
 * The section is none that libbpf makes a map of.
 */
#define EXPORT_LAYOUT(type) struct type *type##_layout SEC(".layouts")

#ifdef BCC

#include <asm/ptrace.h>

/*
 * These two do not compile on 7.x, where bcc 0.31 puts its own, older copy of uapi/linux/bpf.h in place of the
 * kernel's; who includes them needs only the names of their structs. Where cgroups have no header of their own for
 * what they have of BPF (5.10), they need the first of the two.
 */
#if __has_include(<linux/bpf-cgroup-defs.h>)
#define _LINUX_BPF_H
#define __LINUX_FILTER_H__
#endif
#include <linux/sched.h>

#ifdef READS_SOCKETS

#include <linux/fdtable.h>
#include <linux/net.h>
#include <linux/trace_events.h>
#include <net/sock.h>

/* the kernel makes these from macros (include/trace/events/syscalls.h): no header has them */
struct trace_event_raw_sys_enter {
	struct trace_entry ent;
	long id;
	unsigned long args[6];
};

struct trace_event_raw_sys_exit {
	struct trace_entry ent;
	long id;
	long ret;
};

/* the headers are those of the kernel: without IPv6 this does not compile */
#define HAS_IPV6(sk) 1

/* The registers with which the current thread entered the kernel: task_pt_regs() of asm/processor.h. */
static __always_inline struct pt_regs *user_registers(const void *ctx __attribute__((unused)))
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	void *stack = BPF_CORE_READ(task, stack);

	return (struct pt_regs *)(stack + THREAD_SIZE - TOP_OF_KERNEL_STACK_PADDING) - 1;
}

#endif /* READS_SOCKETS */

#else

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* arch/x86/include/asm/ptrace.h, 64 bit */
struct pt_regs {
	unsigned long bx;
	unsigned long cx;
	unsigned long dx;
	unsigned long si;
	unsigned long di;
};

struct in6_addr {
	__u8 bytes[16];
};

struct sock_common {
	__be32 skc_daddr;
	__be16 skc_dport;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	struct in6_addr skc_v6_daddr;
};

struct sock {
	struct sock_common __sk_common;
};

struct socket {
	struct sock *sk;
};

struct inode {
	unsigned short i_mode;
};

struct file {
	struct inode *f_inode;
	void *private_data;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct task_struct {
	struct task_struct *real_parent;
	int tgid;
	struct files_struct *files;
};

/* what the syscall tracepoints hand to a program; where the arguments begin differs between kernels */
struct trace_event_raw_sys_enter {
	unsigned long args[6];
};

struct trace_event_raw_sys_exit {
	long ret;
};

#pragma clang attribute pop

/* whether the kernel's sockets have room for an address of IPv6 (CONFIG_IPV6) */
#define HAS_IPV6(sk) bpf_core_field_exists((sk)->__sk_common.skc_v6_daddr)

/*
 * The registers with which the current thread entered the kernel. A kernel without that helper (5.15) has them where a
 * syscall tracepoint's context begins, in place of the fields that all events have: kernel/trace/trace_syscalls.c,
 * perf_call_bpf_exit(). Later ones have others there since 376bd59e2a04 ("bpf: Use fake pt_regs when doing bpf syscall
 * tracepoint tracing", 6.12). A program may not read these fields, so they are read as memory.
 */
static __always_inline struct pt_regs *user_registers(const void *ctx)
{
	struct pt_regs *registers = NULL;

	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		return (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
	bpf_probe_read_kernel(&registers, sizeof(registers), ctx);
	return registers;
}

#endif /* BCC */

#endif
