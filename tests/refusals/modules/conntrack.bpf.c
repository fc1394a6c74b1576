// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Functions of modules: of nf_conntrack, and of nfs, which the guests' image has not and the kernel's package has.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

SEC("kprobe/nf_conntrack_in") int probed(struct pt_regs *ctx) { return 0; }
SEC("fentry/nf_conntrack_in") int BPF_PROG(traced) { return 0; }
SEC("kprobe/nfs_file_open") int of_a_module_outside_the_image(struct pt_regs *ctx) { return 0; }
char LICENSE[] SEC("license") = "GPL";
