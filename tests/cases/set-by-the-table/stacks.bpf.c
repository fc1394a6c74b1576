// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Its loader sets how many frames a stack has.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_STACK_TRACE); __uint(max_entries, 8); __type(key, __u32); } stacks SEC(".maps");
SEC("kprobe/do_nanosleep") int sleeps(struct pt_regs *ctx) { return bpf_get_stackid(ctx, &stacks, 0) == 77; }
char LICENSE[] SEC("license") = "GPL";
