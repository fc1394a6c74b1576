/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef XDP_PACKET_COUNTER_H
#define XDP_PACKET_COUNTER_H

/* One per CPU; a reader adds them up. */
struct xdp_counters {
	__u64 packets;
	/* as on the wire: with the Ethernet header and any tag, without the checksum the card strips */
	__u64 bytes;
	/* frames whose own EtherType says so: a tagged frame is neither */
	__u64 ipv4;
	__u64 ipv6;
};

#endif
