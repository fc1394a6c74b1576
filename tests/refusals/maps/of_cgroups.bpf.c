// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Storage of a cgroup that its programs share; it has no max_entries.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>
struct { __uint(type, BPF_MAP_TYPE_CGROUP_STORAGE); __type(key, struct bpf_cgroup_storage_key); __type(value, __u64); } own SEC(".maps");
SEC("cgroup_skb/egress") int counts(struct __sk_buff *skb) { __u64 *n = bpf_get_local_storage(&own, 0); __sync_fetch_and_add(n, 1); return 1; }
char LICENSE[] SEC("license") = "GPL";
