/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef KPROBE_EXECVE_H
#define KPROBE_EXECVE_H

#define EXEC_COMM_LEN	  16
#define EXEC_FILENAME_LEN 256

/* The system call that was entered. */
enum exec_entry {
	EXEC_ENTRY_EXECVE = 1,
	EXEC_ENTRY_EXECVEAT = 2,
	EXEC_ENTRY_COMPAT_EXECVE = 3,
	EXEC_ENTRY_COMPAT_EXECVEAT = 4,
};

/* A call of execve, at its entry: whether it succeeds is not known yet. */
struct exec_event {
	/* CLOCK_MONOTONIC, ns */
	__u64 timestamp;
	/* the calling thread; what user space calls the pid is tgid */
	__u32 pid;
	__u32 tgid;
	__u32 uid;
	__u32 gid;
	/* the parent process (as getppid() says it in the initial PID namespace) */
	__u32 ppid;
	enum exec_entry entry;
	/* the descriptor that filename is relative to, AT_FDCWD (-100) for the working directory */
	__s32 directory;
	/*
	 * bytes of filename with its NUL, EXEC_FILENAME_LEN when it was cut; negative errno when it was not readable:
	 * a probe cannot wait for a page that is not in memory, although the call itself may well succeed
	 */
	__s32 filename_length;
	/* of the caller, before the call */
	char comm[EXEC_COMM_LEN];
	char filename[EXEC_FILENAME_LEN];
};

/* What was not sent, or not counted. */
struct exec_losses {
	/* events that found the ring buffer full */
	__u64 events;
	/* calls of users for whom the table of users had no room */
	__u64 uids;
};

#endif
