// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * One program for each feature that a probe decides by loading or attaching a
 * program. Each is loaded alone, to probe whether it loads.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define __unused __attribute__((unused))

char LICENSE[] SEC("license") = "GPL";

/* how often the LSM program ran */
__u64 lsm_runs;

/* xdp_frags: the section's name makes libbpf load it with BPF_F_XDP_HAS_FRAGS */
SEC("xdp.frags")
int probe_xdp_frags(struct xdp_md *ctx __unused)
{
	return XDP_PASS;
}

/* xdp_link */
SEC("xdp")
int probe_xdp_link(struct xdp_md *ctx __unused)
{
	return XDP_PASS;
}

/* tcx: -1 is TCX_NEXT, which passes the packet to the next program */
SEC("tcx/ingress")
int probe_tcx(struct __sk_buff *ctx __unused)
{
	return -1;
}

/* netfilter: 1 is NF_ACCEPT */
SEC("netfilter")
int probe_netfilter(void *ctx __unused)
{
	return 1;
}

/* fentry: a function of the kernel for such tests */
SEC("fentry/bpf_fentry_test1")
int probe_fentry(void *ctx __unused)
{
	return 0;
}

SEC("kprobe.multi/bpf_fentry_test1")
int probe_kprobe_multi(void *ctx __unused)
{
	return 0;
}

SEC("kprobe")
int probe_bpf_cookie(void *ctx)
{
	return bpf_get_attach_cookie(ctx) == 1;
}

static long once(__u32 index __unused, void *ctx __unused)
{
	return 1;
}

SEC("socket")
int probe_bpf_loop(struct __sk_buff *ctx __unused)
{
	return bpf_loop(1, once, NULL, 0);
}

/* lsm_active: the hook sees every bpf() call while the program is attached */
SEC("lsm/bpf")
int probe_lsm_active(void *ctx __unused)
{
	__sync_fetch_and_add(&lsm_runs, 1);
	return 0;
}

/* empty_string_counted: the argument is the address of an empty string of the process that runs it */
SEC("raw_tp")
int probe_empty_string(struct bpf_raw_tracepoint_args *ctx)
{
	char text[2];

	return bpf_probe_read_user_str(text, sizeof(text), (const void *)ctx->args[0]);
}

/* kprobe: whether one can be attached to a function of the kernel */
SEC("kprobe")
int probe_kprobe(void *ctx __unused)
{
	return 0;
}
