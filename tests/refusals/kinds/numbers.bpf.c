// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Open-coded iterators (kfuncs of 6.4).
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
struct bpf_iter_num;
extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym;
SEC("raw_tp/sys_enter")
int counts(void *ctx)
{
	struct bpf_iter_num it;
	int *v, n = 0;
	bpf_iter_num_new(&it, 0, 4);
	while ((v = bpf_iter_num_next(&it)))
		n += *v;
	bpf_iter_num_destroy(&it);
	return n == 77;
}
char LICENSE[] SEC("license") = "GPL";
