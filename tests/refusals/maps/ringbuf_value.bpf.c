// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A ring buffer has no values.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); __uint(value_size, 8); } ring SEC(".maps");
SEC("tracepoint/syscalls/sys_enter_getpgid") int with_ring(void *ctx) { __u64 v = 1; bpf_ringbuf_output(&ring, &v, 8, 0); return 0; }
char LICENSE[] SEC("license") = "GPL";
