// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Reports connect, accept, every call that sends or receives, and close, on sockets only: read, write and close of
 * files and pipes are no network events. A call is remembered at its entry and reported at its end, with the bytes
 * that the kernel says were moved.
 *
 * What it reports, and what it cannot see, sentence by sentence with its tests: docs/programs.md.
 *
 * - What a descriptor is, is decided at the entry: after close it is nothing any more.
 * - recvmsg and its kin return what they copied; with MSG_TRUNC a datagram's whole length; with MSG_PEEK bytes that a
 *   later call returns again. Bytes are always what the call returned.
 * - sendmmsg and recvmmsg return a number of messages; the bytes are what the kernel wrote into each msg_len.
 * - A call that a signal ends is interrupted, neither done nor failed; if the kernel then starts it again it is
 *   reported again. Its result is the kernel's own number (ERESTARTSYS, -512), which user space sees as EINTR or not
 *   at all.
 * - A call whose end was not seen, because programs were detached or skipped meanwhile, is counted as lost when its
 *   thread makes its next call, and never mistaken for that one.
 * - The peer is the address in the call; where it has none, the one that the socket is connected to, and of an accept
 *   the new socket. The several addresses of a sendmmsg or recvmmsg are not looked at.
 * - Not seen: 32-bit calls (the syscall tracepoints leave them out, arch_trace_is_compat_syscall()), io_uring, and
 *   sockets that go without a close: at exec, exit, dup2 and close_range.
 */
#define READS_SOCKETS /* what the headers for that take to compile is left out elsewhere (harness.bpf.h) */
#include "harness.bpf.h"
#include <bpf/bpf_endian.h>
#include <asm/unistd_64.h>
#include "tracepoint_network.h"

#define S_IFMT	    0170000
#define S_IFSOCK    0140000
#define AF_UNSPEC   0
#define AF_INET	    2
#define AF_INET6    10

#define EINTR	    4
#define EISCONN	    106
#define EALREADY    114
#define EINPROGRESS 115
/* linux/errno.h: what a call returns inside the kernel when a signal ended it, from ERESTARTSYS to
 * ERESTART_RESTARTBLOCK */
#define ERESTART_FIRST 512
#define ERESTART_LAST  516

/* net/tcp_states.h: of a connected socket of any kind */
#define TCP_ESTABLISHED 1

/*
 * How many messages' lengths are read of one call. sendmmsg takes no more than 1024 (UIO_MAXIOV); recvmmsg has no limit
 * (net/socket.c, do_recvmmsg()): what it returns beyond this is counted as lost.
 */
#define MAX_MESSAGES 4096

/* struct mmsghdr of linux/socket.h, 64 bit */
struct message {
	__u8 header[56];
	__u32 length;
	__u32 padding;
};

/* how many messages' lengths are read at once: a power of two, which divides the messages of a page */
#define TOGETHER 8

/* What user memory holds from the length of a message to that of the last one that is read with it. */
struct lengths {
	struct {
		__u32 length;
		__u8 between[sizeof(struct message) - sizeof(__u32)];
	} first[TOGETHER - 1];
	__u32 last;
};

/* A value that the verifier shall not connect with what it was computed from. */
#define HIDE(value) asm volatile("" : "+r"(value))

/*
 * In a loop with a limit: what counts its rounds. bcc optimises at -O3, which would count the rounds that are left down
 * to zero; verifiers do not learn from `left != 0`, until 6.18 at least, and never find the end of such a loop.
 */
#ifdef BCC
#define ROUND(number) HIDE(number)
#else
#define ROUND(number)
#endif

/* The beginning of struct msghdr, and of each mmsghdr. */
struct header {
	const void *name;
	__u32 name_length;
};

/* struct sockaddr_in and sockaddr_in6, as far as they are alike, and where their addresses are */
struct name {
	__u16 family;
	__be16 port;
	__u8 address4[4];
};
#define NAME4_LENGTH  16
#define NAME6_LENGTH  24 /* without sin6_scope_id (SIN6_LEN_RFC2133) */
#define NAME6_ADDRESS 8

struct peer {
	__u32 family;
	__u32 port;
	__u8 address[16];
};

/* A call between its entry and its end. */
struct pending {
	/* the messages of sendmmsg and recvmmsg, of other calls the address that they name */
	const void *memory;
	/* where the kernel writes how long that address is */
	const __u32 *length_at;
	/* how long it is, or may be */
	__u32 length;
	__s32 fd;
	__u32 kind;
	__u32 call;
	__u32 family;
	struct peer peer;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct pending);
} calls SEC(".maps");

EXPORT_LAYOUT(net_event);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

/*
 * Added to atomically: since 7.2 a program may be preempted, and another of these may run meanwhile on the same
 * processor (57918341dd19, "bpf: Add sleepable support for classic tracepoint programs").
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct net_totals);
} totals SEC(".maps");

/*
 * Where lengths are read to: on the stack the verifier would look at each of their bytes in every round. The two
 * programs that need it have one each, as one may be preempted by the other.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lengths);
} send_lengths SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lengths);
} recv_lengths SEC(".maps");

static __always_inline struct net_totals *current_totals(void)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&totals, &key);
}

/* The socket that is open as fd, NULL when fd is no socket. */
static __always_inline struct sock *socket_of(__s32 fd)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **slot, *file = NULL;
	struct socket *socket;

	if (fd < 0 || (__u32)fd >= BPF_CORE_READ(table, max_fds))
		return NULL;
	slot = BPF_CORE_READ(table, fd) + fd;
	if (bpf_probe_read_kernel(&file, sizeof(file), slot) || !file)
		return NULL;
	if ((BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	socket = BPF_CORE_READ(file, private_data);
	return BPF_CORE_READ(socket, sk);
}

/* AF_UNSPEC for NULL: it cannot be read, which is a 0 */
static __always_inline __u32 family_of(const struct sock *sk)
{
	return BPF_CORE_READ(sk, __sk_common.skc_family);
}

/*
 * Whom a socket is connected to; left as it is, all 0, when it is to nobody, or not of the Internet. Where a connection
 * has failed or was taken back the kernel clears the port alone (net/ipv4/tcp.c, tcp_disconnect(); of IPv6 also
 * net/ipv4/udp.c, __udp_disconnect()). Raw sockets are connected without a port.
 */
static __always_inline void read_peer(struct peer *peer, const struct sock *sk)
{
	__u32 family = family_of(sk);
	__be16 port = BPF_CORE_READ(sk, __sk_common.skc_dport);
	__be32 address = 0;

	if (!port && BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_ESTABLISHED)
		return;
	if (family == AF_INET) {
		address = BPF_CORE_READ(sk, __sk_common.skc_daddr);
		__builtin_memcpy(peer->address, &address, sizeof(address));
	} else if (family == AF_INET6 && HAS_IPV6(sk)) {
		bpf_probe_read_kernel(peer->address, sizeof(peer->address), &sk->__sk_common.skc_v6_daddr);
	} else {
		return;
	}
	peer->family = family;
	peer->port = bpf_ntohs(port);
}

/* The address that a call names, where it names one: its family, and of the Internet's families the rest. */
static __always_inline void read_name(struct peer *peer, const void *memory, __u32 length)
{
	struct name name = {};

	if (length < sizeof(name.family) || bpf_probe_read_user(&name.family, sizeof(name.family), memory) ||
	    name.family == AF_UNSPEC)
		return;
	__builtin_memset(peer, 0, sizeof(*peer));
	peer->family = name.family;
	if (name.family == AF_INET && length >= NAME4_LENGTH) {
		bpf_probe_read_user(&name, sizeof(name), memory);
		__builtin_memcpy(peer->address, name.address4, sizeof(name.address4));
	} else if (name.family == AF_INET6 && length >= NAME6_LENGTH) {
		bpf_probe_read_user(&name, sizeof(name), memory);
		bpf_probe_read_user(peer->address, sizeof(peer->address), memory + NAME6_ADDRESS);
	}
	peer->port = bpf_ntohs(name.port);
}

/* Forget what a thread has not ended as far as was seen, which is a lost call. */
static __always_inline void forget(__u64 thread)
{
	struct net_totals *total;

	if (!bpf_map_lookup_elem(&calls, &thread))
		return;
	bpf_map_delete_elem(&calls, &thread);
	total = current_totals();
	if (total)
		__sync_fetch_and_add(&total->lost_ends, 1);
}

/* `call` is a constant in each program: what other calls need is not compiled */
static __always_inline int enter(struct trace_event_raw_sys_enter *ctx, __s32 fd, enum net_kind kind, __u32 call)
{
	struct sock *sk = socket_of(fd);
	struct pending pending = {
		.fd = fd,
		.kind = kind,
		.call = call,
		.family = family_of(sk),
	};
	__u64 thread = bpf_get_current_pid_tgid();
	struct header header = {};
	struct net_totals *total;

	forget(thread);
	if (pending.family == AF_UNSPEC)
		return 0;
	if (kind != NET_CONNECT && kind != NET_ACCEPT)
		read_peer(&pending.peer, sk);
	if (call == __NR_sendmmsg || call == __NR_recvmmsg) {
		pending.memory = (const void *)ctx->args[1];
	} else if (call == __NR_connect) {
		pending.memory = (const void *)ctx->args[1];
		pending.length = ctx->args[2];
	} else if (call == __NR_sendto) {
		pending.memory = (const void *)ctx->args[4];
		pending.length = ctx->args[5];
	} else if (call == __NR_recvfrom) {
		pending.memory = (const void *)ctx->args[4];
		pending.length_at = (const __u32 *)ctx->args[5];
		bpf_probe_read_user(&pending.length, sizeof(pending.length), pending.length_at);
	} else if (call == __NR_sendmsg || call == __NR_recvmsg) {
		bpf_probe_read_user(&header, sizeof(header), (const void *)ctx->args[1]);
		pending.memory = header.name;
		pending.length = header.name_length;
		if (call == __NR_recvmsg)
			pending.length_at = &((const struct header *)ctx->args[1])->name_length;
	}
	if (bpf_map_update_elem(&calls, &thread, &pending, BPF_ANY)) {
		total = current_totals();
		if (total)
			__sync_fetch_and_add(&total->lost_calls, 1);
	}
	return 0;
}

/* The length of one message; 0 for one that cannot be read, which is counted by the error's sign. */
static __always_inline __u64 length_of(const struct message *message, __u64 *unread)
{
	__u32 length;
	long error;

	error = bpf_probe_read_user(&length, sizeof(length), &message->length);
	*unread -= error >> 63;
	return length;
}

/*
 * The bytes of the first messages of a sendmmsg or recvmmsg.
 *
 * Most are read TOGETHER at once, beginning where no page ends between their lengths: what can be missing is a page, so
 * either all are read or none. (Only a vector that the caller has put at an odd address is another matter; there, of
 * messages in a page that is missing, the neighbours in the page before may be counted too.)
 *
 * Written for the verifier, which follows every round of each loop. Counts are hidden copies: comparing what a later
 * one is computed from would give that another largest value after every round, and the rest of the program would be
 * followed anew for each. A round has no branch: what cannot be read is 0 (bpf_probe_read_user() clears it).
 */
static __always_inline __u64 message_bytes(const struct message *messages, long result, __u32 call,
					   struct net_totals *total)
{
	__u64 all = result > 0 ? result : 0;
	__u64 count = all < MAX_MESSAGES ? all : MAX_MESSAGES;
	__u64 before = -((unsigned long)&messages->length / sizeof(*messages)) % TOGETHER;
	__u64 rounds, behind, bytes = 0, unread = 0;
	const struct message *next;
	struct lengths *lengths;
	__u32 key = 0;
	long error;
	__u32 i, one;

	if (call == __NR_sendmmsg)
		lengths = bpf_map_lookup_elem(&send_lengths, &key);
	else
		lengths = bpf_map_lookup_elem(&recv_lengths, &key);
	if (!lengths)
		return 0;
	unread = all - count;
	if (before > count)
		before = count;
	next = messages + before;
	rounds = (count - before) / TOGETHER;
	behind = (count - before) % TOGETHER;
	HIDE(next);
	HIDE(rounds);
	HIDE(behind);

	for (i = 0; i < TOGETHER - 1 && i < before; i++) {
		ROUND(i);
		bytes += length_of(&messages[i], &unread);
	}
	for (i = 0; i < MAX_MESSAGES / TOGETHER && i < rounds; i++) {
		ROUND(i);
		error = bpf_probe_read_user(lengths, sizeof(*lengths), &next->length);
		unread += (error >> 63) & TOGETHER;
		bytes += lengths->last;
#pragma unroll
		for (one = 0; one < TOGETHER - 1; one++)
			bytes += lengths->first[one].length;
		next += TOGETHER;
	}
	for (i = 0; i < TOGETHER - 1 && i < behind; i++) {
		ROUND(i);
		bytes += length_of(&next[i], &unread);
	}
	__sync_fetch_and_add(&total->lost_lengths, unread);
	return bytes;
}

static __always_inline enum net_state state_of(enum net_kind kind, long result)
{
	if (result >= 0)
		return NET_DONE;
	/* of a send, too: TCP Fast Open begins a connection with one */
	if (result == -EINPROGRESS)
		return NET_IN_PROGRESS;
	if (kind == NET_CONNECT && (result == -EALREADY || result == -EISCONN))
		return NET_UNCHANGED;
	if (result == -EINTR || (result <= -ERESTART_FIRST && result >= -ERESTART_LAST))
		return NET_INTERRUPTED;
	return NET_FAILED;
}

static __always_inline void count(struct net_totals *total, enum net_kind kind, enum net_state state, __u64 bytes)
{
	if (kind == NET_CONNECT && state == NET_DONE)
		__sync_fetch_and_add(&total->connects, 1);
	else if (kind == NET_CONNECT && state == NET_IN_PROGRESS)
		__sync_fetch_and_add(&total->connects_in_progress, 1);
	else if (kind == NET_CONNECT && state == NET_INTERRUPTED)
		__sync_fetch_and_add(&total->connects_interrupted, 1);
	else if (kind == NET_CONNECT && state == NET_UNCHANGED)
		__sync_fetch_and_add(&total->connects_repeated, 1);
	else if (kind == NET_CONNECT)
		__sync_fetch_and_add(&total->connects_failed, 1);
	else if (kind == NET_ACCEPT && state == NET_DONE)
		__sync_fetch_and_add(&total->accepts, 1);
	else if (kind == NET_SEND)
		__sync_fetch_and_add(&total->bytes_sent, bytes);
	else if (kind == NET_RECEIVE)
		__sync_fetch_and_add(&total->bytes_received, bytes);
	else if (kind == NET_CLOSE && state == NET_DONE)
		__sync_fetch_and_add(&total->closes, 1);
}

/* Whether the call that ends is about that descriptor. */
static __always_inline int is_about(struct trace_event_raw_sys_exit *ctx, __s32 fd, __u32 call)
{
	struct pt_regs *user = user_registers(ctx);

	return (__s32)BPF_CORE_READ(user, di) == fd || (call == __NR_splice && (__s32)BPF_CORE_READ(user, dx) == fd);
}

/* Whom the call was about, as far as that is known only now. */
static __always_inline void find_peer(struct pending *pending, enum net_kind kind, __u32 call, long result)
{
	__u32 length = 0;

	if (kind == NET_ACCEPT) {
		read_peer(&pending->peer, result < 0 ? NULL : socket_of(result));
	} else if (call == __NR_connect || call == __NR_sendto || call == __NR_sendmsg) {
		read_name(&pending->peer, pending->memory, pending->length);
	} else if ((call == __NR_recvfrom || call == __NR_recvmsg) && result >= 0) {
		bpf_probe_read_user(&length, sizeof(length), pending->length_at);
		read_name(&pending->peer, pending->memory, length < pending->length ? length : pending->length);
	}
}

/*
 * A call's end; a thread that is killed inside one comes here before it dies. A thread without a remembered call is not
 * on a socket, or was inside it when this was attached. `call` is a constant in each program, as at the entry.
 */
static __always_inline int leave(struct trace_event_raw_sys_exit *ctx, __u32 call)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct pending *entered = bpf_map_lookup_elem(&calls, &thread);
	struct net_totals *total = current_totals();
	long result = ctx->ret;
	struct pending pending;
	struct net_event *event;
	enum net_state state;
	__u64 bytes = 0;

	if (!entered || !total)
		return 0;
	pending = *entered;
	if (pending.call != call || !is_about(ctx, pending.fd, call)) {
		forget(thread);
		return 0;
	}
	bpf_map_delete_elem(&calls, &thread);

	state = state_of(pending.kind, result);
	if (call == __NR_sendmmsg || call == __NR_recvmmsg)
		bytes = message_bytes(pending.memory, result, call, total);
	else if ((pending.kind == NET_SEND || pending.kind == NET_RECEIVE) && result > 0)
		bytes = result;
	count(total, pending.kind, state, bytes);

	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		__sync_fetch_and_add(&total->lost_events, 1);
		return 0;
	}
	find_peer(&pending, pending.kind, call, result);
	event->timestamp = bpf_ktime_get_ns();
	event->result = result;
	event->bytes = bytes;
	event->pid = (__u32)thread;
	event->tgid = thread >> 32;
	event->uid = (__u32)bpf_get_current_uid_gid();
	event->fd = pending.fd;
	event->kind = pending.kind;
	event->state = state;
	event->call = pending.call;
	event->family = pending.family;
	event->peer_family = pending.peer.family;
	event->peer_port = pending.peer.port;
	__builtin_memcpy(event->peer_address, pending.peer.address, sizeof(event->peer_address));
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* Two programs for a system call: `descriptor` is the number of the argument that is the socket. */
#define TRACE(name, kind, descriptor)                                                                                  \
	SEC("tracepoint/syscalls/sys_enter_" #name)                                                                    \
	int trace_##name##_enter(struct trace_event_raw_sys_enter *ctx)                                                \
	{                                                                                                              \
		return enter(ctx, ctx->args[descriptor], kind, __NR_##name);                                           \
	}                                                                                                              \
                                                                                                                       \
	SEC("tracepoint/syscalls/sys_exit_" #name)                                                                     \
	int trace_##name##_exit(struct trace_event_raw_sys_exit *ctx)                                                  \
	{                                                                                                              \
		return leave(ctx, __NR_##name);                                                                        \
	}

/* the tracepoint has the name of the kernel's function, which differs from the call's */
#define __NR_sendfile64 __NR_sendfile

TRACE(connect, NET_CONNECT, 0)
TRACE(accept, NET_ACCEPT, 0)
TRACE(accept4, NET_ACCEPT, 0)
TRACE(sendto, NET_SEND, 0)
TRACE(sendmsg, NET_SEND, 0)
TRACE(sendmmsg, NET_SEND, 0)
TRACE(write, NET_SEND, 0)
TRACE(writev, NET_SEND, 0)
TRACE(pwritev2, NET_SEND, 0)
TRACE(sendfile64, NET_SEND, 0)
TRACE(recvfrom, NET_RECEIVE, 0)
TRACE(recvmsg, NET_RECEIVE, 0)
TRACE(recvmmsg, NET_RECEIVE, 0)
TRACE(read, NET_RECEIVE, 0)
TRACE(readv, NET_RECEIVE, 0)
TRACE(preadv2, NET_RECEIVE, 0)
TRACE(close, NET_CLOSE, 0)

/* splice moves from a socket into a pipe, or from a pipe into a socket */
SEC("tracepoint/syscalls/sys_enter_splice")
int trace_splice_enter(struct trace_event_raw_sys_enter *ctx)
{
	if (family_of(socket_of(ctx->args[0])) != AF_UNSPEC)
		return enter(ctx, ctx->args[0], NET_RECEIVE, __NR_splice);
	return enter(ctx, ctx->args[2], NET_SEND, __NR_splice);
}

SEC("tracepoint/syscalls/sys_exit_splice")
int trace_splice_exit(struct trace_event_raw_sys_exit *ctx)
{
	return leave(ctx, __NR_splice);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
