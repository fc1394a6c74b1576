/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Stands in for libbpf's bpf_endian.h: bcc's helpers.h has bpf_htons() and its kin already. */
