// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A program of each kind whose target its loader chooses, or that is attached in a way of its own.
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/usdt.bpf.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} elements SEC(".maps");

SEC("action") int on_action(struct __sk_buff *skb) { return 0; }
SEC("socket") int on_socket(struct __sk_buff *skb) { return skb->len; }
SEC("sk_reuseport") int on_reuseport(struct sk_reuseport_md *md) { return SK_PASS; }
SEC("sk_skb/stream_verdict") int on_verdict(struct __sk_buff *skb) { return SK_PASS; }
SEC("sk_msg") int on_msg(struct sk_msg_md *msg) { return SK_PASS; }
SEC("perf_event") int on_event(struct bpf_perf_event_data *ctx) { return 0; }
SEC("uprobe") int on_uprobe(struct pt_regs *ctx) { return 0; }
SEC("uretprobe/libc.so.6:getpid") int on_uretprobe(struct pt_regs *ctx) { return 0; }
SEC("usdt") int on_usdt(struct pt_regs *ctx) { return 0; }
SEC("usdt/libstdc++.so.6:libstdcxx:throw") int on_named_usdt(struct pt_regs *ctx) { return 0; }
SEC("kprobe/do_nanosleep") int on_kprobe(struct pt_regs *ctx) { return 0; }
SEC("kprobe") int on_bare_kprobe(struct pt_regs *ctx) { return 0; }
SEC("ksyscall/nanosleep") int on_ksyscall(struct pt_regs *ctx) { return 0; }
SEC("fentry/do_nanosleep") int BPF_PROG(on_fentry) { return 0; }
SEC("fexit/do_nanosleep") int BPF_PROG(on_fexit) { return 0; }
SEC("raw_tp/sys_enter") int on_raw(void *ctx) { return 0; }
SEC("lsm/file_open") int BPF_PROG(on_lsm, struct file *file) { return 0; }
SEC("lsm.s/file_open") int BPF_PROG(on_sleeping_lsm, struct file *file) { return 0; }
SEC("lwt_in") int on_lwt_in(struct __sk_buff *skb) { return 0; }
SEC("lwt_xmit") int on_lwt_xmit(struct __sk_buff *skb) { return 0; }
SEC("cgroup/dev") int on_device(struct bpf_cgroup_dev_ctx *ctx) { return 1; }
SEC("cgroup/sysctl") int on_sysctl(struct bpf_sysctl *ctx) { return 1; }
SEC("cgroup/getsockopt") int on_getsockopt(struct bpf_sockopt *ctx) { return 1; }
SEC("cgroup/sock_create") int on_sock_create(struct bpf_sock *ctx) { return 1; }
SEC("cgroup/skb") int on_cgroup_skb(struct __sk_buff *skb) { return 1; }
SEC("xdp/devmap") int on_devmap(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdp/cpumap") int on_cpumap(struct xdp_md *ctx) { return XDP_PASS; }
SEC("syscall") int on_call(void *ctx) { return 0; }
SEC("?xdp") int on_request(struct xdp_md *ctx) { return XDP_PASS; }
SEC("tc/ingress") int on_tc_ingress(struct __sk_buff *skb) { return 0; }

static char line[] = "x\n";
SEC("iter/task")
int on_task(struct bpf_iter__task *ctx)
{
	bpf_seq_write(ctx->meta->seq, line, 2);
	return 0;
}
SEC("iter/bpf_map_elem")
int on_element(struct bpf_iter__bpf_map_elem *ctx)
{
	bpf_seq_write(ctx->meta->seq, line, 2);
	return 0;
}
char LICENSE[] SEC("license") = "GPL";
