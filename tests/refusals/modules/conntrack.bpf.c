// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A function and a kfunc of nf_conntrack, which is a module.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

SEC("kprobe/nf_conntrack_in") int probed(struct pt_regs *ctx) { return 0; }
SEC("fentry/nf_conntrack_in") int BPF_PROG(traced) { return 0; }
SEC("kprobe/nfs_file_open") int of_no_module_here(struct pt_regs *ctx) { return 0; }
char LICENSE[] SEC("license") = "GPL";
