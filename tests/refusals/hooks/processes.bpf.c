// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Programs and libraries that are not there.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
SEC("uprobe//usr/bin/no-such-program:main") int no_file(struct pt_regs *ctx) { return 0; }
SEC("uprobe/libc.so.6:no_such_function") int no_symbol(struct pt_regs *ctx) { return 0; }
SEC("uprobe/libnosuch.so:f") int no_library(struct pt_regs *ctx) { return 0; }
SEC("usdt/libc.so.6:nobody:nothing") int no_probe(struct pt_regs *ctx) { return 0; }
char LICENSE[] SEC("license") = "GPL";
