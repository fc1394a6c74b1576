/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef TRACEPOINT_NETWORK_H
#define TRACEPOINT_NETWORK_H

#define NET_COMM_LEN 16

enum net_kind {
	NET_CONNECT = 1,
	NET_ACCEPT = 2,
	NET_SEND = 3,
	NET_RECEIVE = 4,
	NET_CLOSE = 5,
};

enum net_state {
	NET_DONE = 0,
	NET_FAILED = 1,
	/* a non-blocking connect that goes on (EINPROGRESS): neither done nor failed */
	NET_IN_PROGRESS = 2,
	/* ended by a signal */
	NET_INTERRUPTED = 3,
};

/* A system call on a socket, at its end. */
struct net_event {
	/* CLOCK_MONOTONIC, ns */
	__u64 timestamp;
	/* what the call returned: negative errno, or bytes, messages, a new descriptor */
	__s64 result;
	/* what the kernel says it moved */
	__u64 bytes;
	/* the calling thread; what user space calls the pid is tgid */
	__u32 pid;
	__u32 tgid;
	__u32 uid;
	__s32 fd;
	enum net_kind kind;
	enum net_state state;
	/* the number of the call (asm/unistd_64.h) */
	__u32 call;
	/* AF_* */
	__u32 family;
	char comm[NET_COMM_LEN];
};

/* One per CPU; a reader adds them up. */
struct net_totals {
	__u64 connects;
	__u64 connects_failed;
	__u64 connects_in_progress;
	__u64 connects_interrupted;
	__u64 accepts;
	__u64 bytes_sent;
	__u64 bytes_received;
	__u64 closes;
	/* events that found the ring buffer full */
	__u64 lost_events;
	/* calls that found no room to be remembered until their end: counted nowhere else */
	__u64 lost_calls;
	/* messages whose length could not be read back from user memory: their bytes are missing */
	__u64 lost_lengths;
};

#endif
