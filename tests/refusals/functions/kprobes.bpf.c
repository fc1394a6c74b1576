// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Kernel functions that cannot be probed by the name that the section has, each in its own way.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
SEC("kprobe/no_such_function") int on_nothing(struct pt_regs *ctx) { return 0; }
SEC("kprobe/blk_account_io_start") int on_inlined(struct pt_regs *ctx) { return 0; }
SEC("kprobe/kprobe_dispatcher") int on_forbidden(struct pt_regs *ctx) { return 0; }
SEC("kprobe/do_nanosleep+0x1") int on_offset(struct pt_regs *ctx) { return 0; }
SEC("kprobe/do_nanosleep+0x0") int on_start(struct pt_regs *ctx) { return 0; }
SEC("kretprobe/do_nanosleep+0x5") int on_offset_of_return(struct pt_regs *ctx) { return 0; }
SEC("kretprobe/sys_nanosleep") int on_call_without_prefix(struct pt_regs *ctx) { return 0; }
SEC("ksyscall/futex_waitv") int on_new_call(struct pt_regs *ctx) { return 0; }
SEC("ksyscall/no_such_call") int on_no_call(struct pt_regs *ctx) { return 0; }
SEC("kprobe/name_show") int on_several(struct pt_regs *ctx) { return 0; }
SEC("kprobe/nf_conntrack_in") int in_module(struct pt_regs *ctx) { return 0; }
char LICENSE[] SEC("license") = "GPL";
