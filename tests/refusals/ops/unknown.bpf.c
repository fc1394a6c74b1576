// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Operations that no kernel has.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
struct no_such_ops { int (*call)(int x); };
SEC("struct_ops/call") int BPF_PROG(call, int x) { return 0; }
SEC(".struct_ops") struct no_such_ops mine = { .call = (void *)call };
char LICENSE[] SEC("license") = "GPL";
