/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Where things are in a packet. Nothing here knows what is ours.
 *
 * Two limits hold for every read: the end of the frame, which the verifier insists on, and the number of bytes that the
 * IP header says the packet has, so that Ethernet padding is never taken for a port number.
 *
 * Everything behind the first IP header stands at an offset that differs from packet to packet. To read there directly,
 * whoever loads the program needs CAP_PERFMON. Helpers do without, from Linux 5.18 on, and take a little longer. So all
 * of this is compiled twice, and `frame.by_helper`, a constant in each, says which way to read.
 */
#ifndef ILB_PARSE_H
#define ILB_PARSE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* IPv6 extension headers that are walked before giving up. */
#define MAX_EXTENSION_HEADERS 8

/* Where reading ends: the verifier follows offsets of 16 bits, and no headers reach this far. */
#define MAX_OFFSET 0x7fff

/* Fragment offset in the IPv4 header and in the IPv6 fragment header: RFC 791 section 3.1, RFC 8200 section 4.5. */
#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV6_FRAGMENT_OFFSET 0xfff8

/* The numbers of the extension headers stand in the kernel's net/ipv6.h, which userspace does not see:
 * https://www.iana.org/assignments/ipv6-parameters (extension header types). */
#define EXTENSION_HOP_BY_HOP 0
#define EXTENSION_ROUTING 43
#define EXTENSION_FRAGMENT 44
#define EXTENSION_AUTHENTICATION 51
#define EXTENSION_DESTINATION 60

/* RFC 9568 section 5.1.1.4. The kernel's headers have no name for it. */
#define PROTOCOL_VRRP 112

/* Error types: RFC 792, RFC 4443. <linux/icmp.h> has them too, but drags in headers of the C library. */
#define ICMP_DESTINATION_UNREACHABLE 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12
#define ICMPV6_DESTINATION_UNREACHABLE 1
#define ICMPV6_PARAMETER_PROBLEM 4

/* Queries with an identifier, question and answer: RFC 792, RFC 950, RFC 4443, RFC 8335. */
#define ICMP_ECHO_REPLY 0
#define ICMP_ECHO_REQUEST 8
#define ICMP_TIMESTAMP 13
#define ICMP_ADDRESS_MASK_REPLY 18
#define ICMP_EXTENDED_ECHO 42
#define ICMP_EXTENDED_ECHO_REPLY 43
#define ICMPV6_ECHO 128
#define ICMPV6_ECHO_ANSWER 129
#define ICMPV6_EXTENDED_ECHO 160
#define ICMPV6_EXTENDED_ECHO_ANSWER 161

/* Neighbour discovery, from router solicitation to redirect: RFC 4861. */
#define ICMPV6_ROUTER_SOLICITATION 133
#define ICMPV6_REDIRECT 137

/* Length of the part of an ICMP and an ICMPv6 message before the packet that an error is about: RFC 792, RFC 4443. */
#define ICMP_ERROR_HEADER 8

/* A received frame. Positions in it are offsets from `data`. */
struct frame {
	struct xdp_md *ctx;
	void *data;
	void *data_end;
	__u8 by_helper;
};

/* What follows the IP header and its extensions. */
struct payload {
	__u32 offset;  /* first byte */
	__u32 length;  /* bytes that the packet claims to have from there */
	__u8 protocol; /* transport protocol */
	__u8 later;    /* a fragment other than the first: `start` is amidst the transport's data */
};

/* The first four bytes of TCP, UDP and SCTP. */
struct ports_header {
	__be16 source;
	__be16 destination;
};

/* Port numbers in host byte order. */
struct ports {
	__u16 source;
	__u16 destination;
	__u8 present; /* the packet is long enough to have them */
	__u8 later;   /* a later fragment, which has none */
	__u8 needless; /* the protocol has none */
};

/* The first two bytes of every IPv6 extension header that is walked; the unit of `length` differs. */
struct extension {
	__u8 next;
	__u8 length;
	__be16 fragment; /* fragment header only: offset and flags */
	__be32 identification;
};

static __always_inline struct frame open_frame(struct xdp_md *ctx, __u8 by_helper)
{
	struct frame frame = {
		.ctx = ctx,
		.data = (void *)(long)ctx->data,
		.data_end = (void *)(long)ctx->data_end,
		.by_helper = by_helper,
	};

	return frame;
}

/* Whether the frame has at least `length` bytes: the 16 bits of a length field, and a header or two. */
static __always_inline int is_as_long_as(const struct frame *frame, __u32 length)
{
	if (frame->by_helper)
		return bpf_xdp_get_buff_len(frame->ctx) >= length;
	/* Older verifiers forget the width of a number when its bytes are swapped. */
	barrier_var(length);
	return frame->data + (length & 0x1ffff) <= frame->data_end;
}

/* Length of the frame behind its Ethernet header. */
static __always_inline __u32 length_of_packet(const struct frame *frame)
{
	if (frame->by_helper)
		return bpf_xdp_get_buff_len(frame->ctx) - ETH_HLEN;
	return (__u32)(frame->data_end - frame->data) - ETH_HLEN;
}

/* `size` bytes at `offset`, in the frame or copied to `buffer`; 0 if they are not there. */
static __always_inline void *read(const struct frame *frame, __u64 offset, void *buffer, __u32 size)
{
	void *start;

	if (offset > MAX_OFFSET)
		return 0;
	if (frame->by_helper)
		return bpf_xdp_load_bytes(frame->ctx, offset, buffer, size) ? 0 : buffer;
	/* The verifier has to see the limit once more, and the compiler would leave it out because it changes nothing. */
	barrier_var(offset);
	start = frame->data + (offset & MAX_OFFSET);
	return start + size <= frame->data_end ? start : 0;
}

static __always_inline int has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

static __always_inline struct ports read_ports(const struct frame *frame, const struct payload *payload)
{
	struct ports ports = { .later = payload->later, .needless = !has_ports(payload->protocol) };
	struct ports_header buffer, *header;

	if (ports.later || ports.needless || payload->length < sizeof(*header))
		return ports;
	header = read(frame, payload->offset, &buffer, sizeof(buffer));
	if (header) {
		ports.source = bpf_ntohs(header->source);
		ports.destination = bpf_ntohs(header->destination);
		ports.present = 1;
	}
	return ports;
}

/* The payload of the IPv4 packet `ip` at `offset`, of which `length` bytes are there; 0 if the header is not sound. */
static __always_inline int parse_ipv4(const struct iphdr *ip, __u32 offset, __u32 length, struct payload *payload)
{
	__u32 header = ip->ihl * 4;

	if (ip->version != 4 || header < sizeof(*ip) || header > length)
		return 0;
	payload->offset = offset + header;
	payload->length = length - header;
	payload->protocol = ip->protocol;
	payload->later = (ip->frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET)) != 0;
	return 1;
}

static __always_inline int is_extension(__u8 next)
{
	return next == EXTENSION_HOP_BY_HOP || next == EXTENSION_ROUTING || next == EXTENSION_FRAGMENT ||
	       next == EXTENSION_AUTHENTICATION || next == EXTENSION_DESTINATION;
}

/* Where the headers go on behind an extension header, in one number because that is all that a global function may
 * return. Never 0. */
#define WALKED(offset, protocol, later) (1ULL << 32 | (later) << 24 | (protocol) << 16 | (offset))
#define WALKED_OFFSET(walked) ((walked) & MAX_OFFSET)
#define WALKED_PROTOCOL(walked) ((walked) >> 16 & 0xff)
#define WALKED_LATER(walked) ((walked) >> 24 & 1)

/* Reads the IPv6 extension header `current` at `offset`; 0 if it does not end before `end`. */
static __always_inline __u64 step(const struct frame *frame, __u32 offset, __u32 end, __u8 current)
{
	struct extension buffer, *extension;
	__u64 later = 0;
	__u32 size;

	extension = read(frame, offset, &buffer, sizeof(buffer));
	if (!extension)
		return 0;
	if (current == EXTENSION_FRAGMENT) {
		size = sizeof(*extension);
		later = (extension->fragment & bpf_htons(IPV6_FRAGMENT_OFFSET)) != 0;
	} else if (current == EXTENSION_AUTHENTICATION) {
		size = (extension->length + 2) * 4; /* RFC 4302 section 2.2 */
	} else {
		size = (extension->length + 1) * 8;
	}
	offset += size;
	if (offset > end || offset > MAX_OFFSET)
		return 0;
	return WALKED(offset, extension->next, later);
}

/* Global functions, because the verifier looks at such a one once, for all arguments. */
__noinline __u64 step_directly(struct xdp_md *ctx, __u32 offset, __u32 end, __u32 current)
{
	struct frame frame = open_frame(ctx, 0);

	return step(&frame, offset, end, current);
}

__noinline __u64 step_by_helper(struct xdp_md *ctx, __u32 offset, __u32 end, __u32 current)
{
	struct frame frame = open_frame(ctx, 1);

	return step(&frame, offset, end, current);
}

/* Walks the IPv6 extension headers from `offset` up to the transport header or into a later fragment; 0 if they do not
 * end before `end` or are too many. */
static __always_inline __u64 walk(const struct frame *frame, __u32 offset, __u32 end, __u8 next)
{
	for (int i = 0; i < MAX_EXTENSION_HEADERS; i++) {
		__u64 walked;

		if (frame->by_helper)
			walked = step_by_helper(frame->ctx, offset, end, next);
		else
			walked = step_directly(frame->ctx, offset, end, next);
		if (!walked)
			return 0;
		offset = WALKED_OFFSET(walked);
		next = WALKED_PROTOCOL(walked);
		if (WALKED_LATER(walked) || !is_extension(next))
			return walked;
	}
	return 0;
}

/* The payload of the IPv6 packet `ip` at `offset`, of which `length` bytes are there; 0 if its headers are not sound. */
static __always_inline int parse_ipv6(const struct frame *frame, const struct ipv6hdr *ip, __u32 offset, __u32 length,
				      struct payload *payload)
{
	__u32 end = offset + length;
	__u64 walked;

	if (ip->version != 6 || length < sizeof(*ip))
		return 0;
	payload->offset = offset + sizeof(*ip);
	payload->length = length - sizeof(*ip);
	payload->protocol = ip->nexthdr;
	payload->later = 0;
	if (!is_extension(ip->nexthdr))
		return 1;

	walked = walk(frame, payload->offset, end, ip->nexthdr);
	if (!walked)
		return 0;
	payload->offset = WALKED_OFFSET(walked);
	payload->length = end - payload->offset;
	payload->protocol = WALKED_PROTOCOL(walked);
	payload->later = WALKED_LATER(walked);
	return 1;
}

/* Errors about packets. Redirects concern the kernel's routes, and source quench is to be ignored (RFC 6633). */
static __always_inline int is_icmp_error(__u8 type)
{
	return type == ICMP_DESTINATION_UNREACHABLE || type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER_PROBLEM;
}

static __always_inline int is_icmpv6_error(__u8 type)
{
	return type >= ICMPV6_DESTINATION_UNREACHABLE && type <= ICMPV6_PARAMETER_PROBLEM;
}

/* Timestamp, information and address mask stand next to each other. */
static __always_inline int is_icmp_query(__u8 type)
{
	return type == ICMP_ECHO_REPLY || type == ICMP_ECHO_REQUEST || type == ICMP_EXTENDED_ECHO ||
	       type == ICMP_EXTENDED_ECHO_REPLY || (type >= ICMP_TIMESTAMP && type <= ICMP_ADDRESS_MASK_REPLY);
}

/* Nothing of neighbour discovery (133 to 137) and of multicast listener discovery (130 to 132, 143). */
static __always_inline int is_icmpv6_query(__u8 type)
{
	return type == ICMPV6_ECHO || type == ICMPV6_ECHO_ANSWER || type == ICMPV6_EXTENDED_ECHO ||
	       type == ICMPV6_EXTENDED_ECHO_ANSWER;
}

static __always_inline int is_neighbour_discovery(__u8 type)
{
	return type >= ICMPV6_ROUTER_SOLICITATION && type <= ICMPV6_REDIRECT;
}

/* The type of the ICMP or ICMPv6 message in `payload`; -1 if it is too short to be one. */
static __always_inline int read_icmp_type(const struct frame *frame, const struct payload *payload)
{
	__u64 buffer;
	__u8 *type;

	_Static_assert(sizeof(buffer) == ICMP_ERROR_HEADER, "the whole header has to be there");
	if (payload->length < ICMP_ERROR_HEADER)
		return -1;
	type = read(frame, payload->offset, &buffer, sizeof(buffer));
	return type ? *type : -1;
}

#endif
