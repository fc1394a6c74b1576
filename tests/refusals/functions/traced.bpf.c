// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Functions of the kernel that are looked up while loading.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
SEC("fentry/no_such_function") int BPF_PROG(on_nothing) { return 0; }
SEC("fexit/nf_conntrack_in") int BPF_PROG(in_module) { return 0; }
SEC("fmod_ret/do_nanosleep") int BPF_PROG(not_modifiable) { return 0; }
SEC("fentry/do_nanosleep") int BPF_PROG(too_many, void *a, void *b, void *c, void *d) { return d != 0; }
SEC("fentry.s/do_nanosleep") int BPF_PROG(not_sleepable) { return 0; }
SEC("lsm/file_opn") int BPF_PROG(no_hook) { return 0; }
SEC("tp_btf/sched_swich") int BPF_PROG(no_tracepoint) { return 0; }
SEC("iter/tsk") int no_iterator(void *ctx) { return 0; }
SEC("fentry/blk_account_io_start") int BPF_PROG(not_traceable) { return 0; }
SEC("fentry/tcp_v4_syn_recv_sock") int BPF_PROG(of_many_arguments) { return 0; }
char LICENSE[] SEC("license") = "GPL";
