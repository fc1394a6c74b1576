// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Reports every call of execve and execveat, through the 64-bit entry points and the 32-bit ones, so that it cannot
 * be walked around by choosing the other call. Each entry point is a program of its own: a kernel without 32-bit
 * emulation has no compat entry points, and its loader leaves those two out.
 *
 * What it reports, and what it cannot see, sentence by sentence with its tests: docs/programs.md.
 *
 * Not seen: the x32 ABI, which has entry points of its own and is off unless a machine boots with syscall.x32=y.
 */
#include "harness.bpf.h"
#include "kprobe_execve.h"

/* linux/fcntl.h: relative to the working directory, as execve always is */
#define AT_FDCWD (-100)

EXPORT_LAYOUT(exec_event);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

/* calls per uid */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} uids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct exec_losses);
} losses SEC(".maps");

static __always_inline struct exec_losses *lost(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&losses, &key);
}

static __always_inline void count(__u32 uid)
{
	__u64 *calls = bpf_map_lookup_elem(&uids, &uid);
	struct exec_losses *loss;
	__u64 zero = 0;

	if (!calls) {
		/* another CPU may have been first: then this fails with EEXIST and the entry is there all the same */
		bpf_map_update_elem(&uids, &uid, &zero, BPF_NOEXIST);
		calls = bpf_map_lookup_elem(&uids, &uid);
	}
	if (calls) {
		__sync_fetch_and_add(calls, 1);
		return;
	}
	loss = lost();
	if (loss)
		__sync_fetch_and_add(&loss->uids, 1);
}

static __always_inline int report(enum exec_entry entry, __s32 directory, const char *filename)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u64 ids = bpf_get_current_uid_gid();
	struct exec_event *event;
	struct exec_losses *loss;
	long length;

	count((__u32)ids);
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		loss = lost();
		if (loss)
			__sync_fetch_and_add(&loss->events, 1);
		return 0;
	}
	event->timestamp = bpf_ktime_get_ns();
	event->uid = (__u32)ids;
	event->gid = ids >> 32;
	ids = bpf_get_current_pid_tgid();
	event->pid = (__u32)ids;
	event->tgid = ids >> 32;
	event->ppid = BPF_CORE_READ(task, real_parent, tgid);
	event->entry = entry;
	event->directory = directory;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	/* a failed read clears all of it (kernel/trace/bpf_trace.c, bpf_probe_read_user_str_common) */
	length = bpf_probe_read_user_str(event->filename, sizeof(event->filename), filename);
	/* before 6.16 the helper did not count the NUL of an empty string (mm/maccess.c, strncpy_from_user_nofault) */
	event->filename_length = length ? length : 1;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* The wrapper's only argument is the user's registers (arch/x86/include/asm/syscall_wrapper.h). */
static __always_inline struct pt_regs *user(struct pt_regs *ctx)
{
	return (struct pt_regs *)ctx->di;
}

SEC("kprobe/__x64_sys_execve")
int trace_execve(struct pt_regs *ctx)
{
	return report(EXEC_ENTRY_EXECVE, AT_FDCWD, (const char *)BPF_CORE_READ(user(ctx), di));
}

SEC("kprobe/__x64_sys_execveat")
int trace_execveat(struct pt_regs *ctx)
{
	return report(EXEC_ENTRY_EXECVEAT, BPF_CORE_READ(user(ctx), di), (const char *)BPF_CORE_READ(user(ctx), si));
}

/* 32-bit calls pass their arguments in bx, cx, dx; the upper halves are not theirs */
SEC("kprobe/__ia32_compat_sys_execve")
int trace_compat_execve(struct pt_regs *ctx)
{
	return report(EXEC_ENTRY_COMPAT_EXECVE, AT_FDCWD, (const char *)(long)(__u32)BPF_CORE_READ(user(ctx), bx));
}

SEC("kprobe/__ia32_compat_sys_execveat")
int trace_compat_execveat(struct pt_regs *ctx)
{
	return report(EXEC_ENTRY_COMPAT_EXECVEAT, BPF_CORE_READ(user(ctx), bx),
		      (const char *)(long)(__u32)BPF_CORE_READ(user(ctx), cx));
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
