/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Stands in for libbpf's bpf_core_read.h: the kernel's own headers say where a member is, so nothing is relocated. */
#ifndef BCC_HEADERS_BPF_CORE_READ_H
#define BCC_HEADERS_BPF_CORE_READ_H

#define BCC_READ(pointer, member)                                                                                      \
	({                                                                                                             \
		typeof((pointer)->member) value_;                                                                      \
		bpf_probe_read_kernel(&value_, sizeof(value_), &(pointer)->member);                                    \
		value_;                                                                                                \
	})
#define BCC_READ_1(pointer, a)		       BCC_READ(pointer, a)
#define BCC_READ_2(pointer, a, b)	       BCC_READ(BCC_READ(pointer, a), b)
#define BCC_READ_3(pointer, a, b, c)	       BCC_READ(BCC_READ_2(pointer, a, b), c)
#define BCC_READ_4(pointer, a, b, c, d)	       BCC_READ(BCC_READ_3(pointer, a, b, c), d)
#define BCC_READ_OF(_1, _2, _3, _4, name, ...) name

/* follows up to four members, as in BPF_CORE_READ(task, files, fdt) */
#define BPF_CORE_READ(pointer, ...)                                                                                    \
	BCC_READ_OF(__VA_ARGS__, BCC_READ_4, BCC_READ_3, BCC_READ_2, BCC_READ_1)(pointer, __VA_ARGS__)

#endif
