/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * What the XDP program and the Rust library share: the layout of keys and values in the pinned maps.
 *
 * This header is the only definition. build.rs turns the numbers below into Rust constants; src/abi.rs mirrors the
 * structures and asserts the same sizes. Whoever changes a layout, a limit or a meaning raises ILB_ABI_VERSION: pinned
 * maps of another version are not read.
 */
#ifndef ILB_SHARED_H
#define ILB_SHARED_H

#include <linux/types.h>

/* Version of everything in this header; part of the path of the pinned maps. */
#define ILB_ABI_VERSION 3

/* Interfaces that one loaded program serves. */
#define ILB_MAX_INTERFACES 64

/* Receive queues of one interface. Socket of queue q on the interface in slot s: key s * ILB_MAX_QUEUES + q. */
#define ILB_MAX_QUEUES 64

/* Port ranges that fit into an entry; a set with more of them is a bitmap. */
#define ILB_INLINE_RANGES 4

/* Words of 64 bits in a bitmap of all ports. */
#define ILB_BITMAP_WORDS 1024

/* Addresses that can be closed. */
#define ILB_MAX_CLOSED 65536

/* struct ilb_ports.kind: which ports the entry holds. */
#define ILB_PORTS_ANY 1
#define ILB_PORTS_RANGES 2
#define ILB_PORTS_BITMAP 3

/* Protocols of keys: TCP, UDP, SCTP and the family's ICMP by their numbers. All others together are this one. */
#define ILB_PROTOCOL_OTHERS 0

/* No packet has this one: its entries in the destination maps hold ICMP errors about what left from the address. */
#define ILB_PROTOCOL_ERRORS 255

/* Sizes in bytes, asserted by both compilers. */
#define ILB_KEY4_SIZE 8
#define ILB_KEY6_SIZE 20
#define ILB_PORTS_SIZE 24
#define ILB_BITMAP_SIZE 8192
#define ILB_ADDRESS_SIZE 16
#define ILB_SETTINGS_SIZE 4
#define ILB_COUNTERS_SIZE 64

/* IPv4 address and protocol. */
struct ilb_key4 {
	__u8 address[4]; /* network byte order */
	__u8 protocol; /* see ILB_PROTOCOL_OTHERS */
	__u8 zero[3];
};

/* IPv6 address and protocol. */
struct ilb_key6 {
	__u8 address[16]; /* network byte order */
	__u8 protocol; /* see ILB_PROTOCOL_OTHERS */
	__u8 zero[3];
};

/* Ports first..=last in host byte order; first > last holds none. */
struct ilb_range {
	__u16 first;
	__u16 last;
};

/* The ports of one address and protocol that are ours. */
struct ilb_ports {
	__u32 kind;                                /* ILB_PORTS_* */
	__u32 bitmap;                              /* ILB_PORTS_BITMAP: key in the map of bitmaps */
	struct ilb_range ranges[ILB_INLINE_RANGES]; /* ILB_PORTS_RANGES: unused ones hold no port */
};

/* Bit (port % 64) of word (port / 64). */
struct ilb_bitmap {
	__u64 words[ILB_BITMAP_WORDS];
};

/* An address of either family: IPv6, or IPv4-mapped (RFC 4291 section 2.5.5.2). */
struct ilb_address {
	__u8 octets[16]; /* network byte order */
};

/* What holds for all packets. */
struct ilb_settings {
	__u32 closed; /* how many addresses are closed; at 0 nobody looks for them */
};

/* Frames by what became of them, per CPU, since the maps were made. */
struct ilb_counters {
	__u64 passed;      /* to the kernel, `malformed` included */
	__u64 malformed;   /* truncated or contradictory, therefore to the kernel */
	__u64 redirected;  /* ours, to the socket of its queue */
	__u64 unserved;    /* ours, dropped because no socket serves its queue */
	__u64 fragments;   /* of redirected + unserved: later fragments, known by their addresses alone */
	__u64 icmp_errors; /* of redirected + unserved: ICMP errors about our packets */
	__u64 closed;      /* not ours, dropped because sent to a closed address */
	__u64 closed_bytes; /* of those, without Ethernet headers */
};

#endif
