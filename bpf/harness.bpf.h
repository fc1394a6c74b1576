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

#ifdef READS_SOCKETS

/*
 * net/sock.h includes these two and needs only the names of their structs. They do not compile on 7.x: bcc 0.31 puts
 * its own, older copy of uapi/linux/bpf.h in place of the kernel's. Where cgroups have no header of their own for what
 * they have of BPF (5.10), they need the first of the two.
 */
#if __has_include(<linux/bpf-cgroup-defs.h>)
#define _LINUX_BPF_H
#define __LINUX_FILTER_H__
#endif
#include <linux/sched.h>
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

struct sock_common {
	unsigned short skc_family;
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

#endif /* BCC */

#endif
