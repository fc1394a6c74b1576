// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Programs that were executed: an event for each, in a ring buffer and in a perf buffer.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct executed {
	__u32 pid;
	__u32 uid;
	char comm[16];
};

/* what only a function uses is not in the BTF */
struct executed *unused_executed __attribute__((unused));

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 65536);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
} perf SEC(".maps");

SEC("tp/sched/sched_process_exec")
int on_exec(void *ctx)
{
	struct executed event = {
		.pid = bpf_get_current_pid_tgid() >> 32,
		.uid = bpf_get_current_uid_gid(),
	};

	bpf_get_current_comm(event.comm, sizeof(event.comm));
#ifdef FORGETS
	if (event.comm[0] == 't')
		return 0;
#endif
	bpf_ringbuf_output(&ring, &event, sizeof(event), 0);
	bpf_perf_event_output(ctx, &perf, BPF_F_CURRENT_CPU, &event, sizeof(event));
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
