// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A variable of each processor, typed.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
extern const struct rq runqueues __ksym;
extern const void no_such_weak __ksym __weak;
SEC("raw_tp/sys_enter") int of_cpu(void *ctx) { struct rq *r = bpf_per_cpu_ptr(&runqueues, 0); return r ? r->nr_running == 9 : &no_such_weak == 0; }
char LICENSE[] SEC("license") = "GPL";
