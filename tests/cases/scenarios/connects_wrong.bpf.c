// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The same, with the port in the machine's byte order.
#define PORT(port) bpf_ntohs(port)
#include "connects.bpf.c"
