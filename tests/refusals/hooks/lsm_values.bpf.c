// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A security hook whose program returns what it must not.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
SEC("lsm/file_open") int BPF_PROG(positive, struct file *file) { return 5; }
SEC("lsm/bpf_token_create") int BPF_PROG(newer_hook) { return 0; }
char LICENSE[] SEC("license") = "GPL";
