// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// An option that no kernel has.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
extern unsigned CONFIG_NO_SUCH_OPTION __kconfig;
SEC("raw_tp/sys_enter") int strong(void *ctx) { return CONFIG_NO_SUCH_OPTION == 3; }
char LICENSE[] SEC("license") = "GPL";
