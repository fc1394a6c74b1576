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
	/* a connection that is being made (EINPROGRESS): neither done nor failed */
	NET_IN_PROGRESS = 2,
	/* ended by a signal */
	NET_INTERRUPTED = 3,
	/* a connect on a socket that is connecting (EALREADY) or connected (EISCONN): nothing began, nothing failed */
	NET_UNCHANGED = 4,
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
	/* of the socket: AF_* */
	__u32 family;
	/*
	 * of the other end: the family of its address, 0 when it is not known; for AF_INET and AF_INET6 its port, and
	 * its address in the order of the network, of AF_INET in the first four bytes
	 */
	__u32 peer_family;
	__u32 peer_port;
	__u8 peer_address[16];
	char comm[NET_COMM_LEN];
};

/* One per CPU; a reader adds them up. */
struct net_totals {
	__u64 connects;
	__u64 connects_failed;
	__u64 connects_in_progress;
	__u64 connects_interrupted;
	/* NET_UNCHANGED */
	__u64 connects_repeated;
	__u64 accepts;
	__u64 bytes_sent;
	__u64 bytes_received;
	__u64 closes;
	/* events that found the ring buffer full */
	__u64 lost_events;
	/* calls that found no room to be remembered until their end: counted nowhere else */
	__u64 lost_calls;
	/* calls whose end was not seen: counted nowhere else */
	__u64 lost_ends;
	/* messages whose length could not be read back from user memory, or was one too many: their bytes are missing
	 */
	__u64 lost_lengths;
};

#endif
