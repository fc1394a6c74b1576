// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Functions that call each other, eight deep below the program. */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

#define CALLS(name, next)                                                      \
	static __noinline int name(int number)                                 \
	{                                                                      \
		volatile int kept = number;                                    \
		return next(kept) + kept;                                      \
	}

static __noinline int eighth(int number)
{
	volatile int kept = number;
	return kept;
}

CALLS(seventh, eighth)
CALLS(sixth, seventh)
CALLS(fifth, sixth)
CALLS(fourth, fifth)
CALLS(third, fourth)
CALLS(second, third)
CALLS(first, second)

SEC("tc")
int deep(struct __sk_buff *ctx)
{
	return first(ctx->len);
}
