// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* A section that leaves to the loader as what the program is attached. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

SEC("sk_skb")
int parser_or_verdict(void *ctx)
{
	return 1;
}
