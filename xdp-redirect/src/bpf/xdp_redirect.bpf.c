// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * Steers the packets of our services into AF_XDP sockets and leaves everything else to the kernel.
 *
 * A frame is ours if
 *   - its destination address, protocol and port are in the destination map, or
 *   - its source address, protocol and port are in the source map, or
 *   - it is a later fragment and one of the two maps knows its address and protocol, or
 *   - it is an ICMP error about a packet that one of the first three lines describes, in either direction, or about one
 *     that left from an address whose errors are in the destination map.
 * TCP, UDP and SCTP have ports. Of ICMP, queries are taken; all other protocols of an address are one entry together.
 * VLAN tags, multicast, ARP, neighbour discovery, group messages and whatever is malformed pass, whatever the maps say.
 *
 * A frame that is not ours and is sent to a closed address is dropped, also if it is malformed. ARP has no such address, and
 * neighbour discovery and VRRP pass.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "shared.h"
#include "maps.h"
#include "parse.h"

_Static_assert(sizeof(struct ilb_key4) == ILB_KEY4_SIZE, "map ABI");
_Static_assert(sizeof(struct ilb_key6) == ILB_KEY6_SIZE, "map ABI");
_Static_assert(sizeof(struct ilb_ports) == ILB_PORTS_SIZE, "map ABI");
_Static_assert(sizeof(struct ilb_bitmap) == ILB_BITMAP_SIZE, "map ABI");
_Static_assert(sizeof(struct ilb_address) == ILB_ADDRESS_SIZE, "map ABI");
_Static_assert(sizeof(struct ilb_settings) == ILB_SETTINGS_SIZE, "map ABI");
_Static_assert(sizeof(struct ilb_counters) == ILB_COUNTERS_SIZE, "map ABI");
_Static_assert(ILB_BITMAP_WORDS * 64 == 65536, "a bit for each port");

/* What a frame turned out to be. */
enum finding {
	NOT_OURS,
	OF_THE_LINK, /* not ours, and no address is closed to it */
	MALFORMED,
	OURS,
	OUR_FRAGMENT,
	OUR_ICMP_ERROR,
};

static __always_inline int holds(const struct ilb_ports *set, __u16 port)
{
	if (!set)
		return 0;
	if (set->kind == ILB_PORTS_RANGES) {
#pragma unroll
		for (int i = 0; i < ILB_INLINE_RANGES; i++)
			if (port >= set->ranges[i].first && port <= set->ranges[i].last)
				return 1;
		return 0;
	}
	if (set->kind == ILB_PORTS_BITMAP) {
		__u32 key = set->bitmap;
		struct ilb_bitmap *bitmap = bpf_map_lookup_elem(&bitmaps, &key);

		/* Gone between the two lookups: the entry has just been changed. Ours rather than answered by RST. */
		if (!bitmap)
			return 1;
		return (bitmap->words[(port >> 6) & (ILB_BITMAP_WORDS - 1)] >> (port & 63)) & 1;
	}
	return set->kind == ILB_PORTS_ANY;
}

/*
 * Keys are made of words of 64 bits, because verifiers up to Linux 6.1 and perhaps later take a smaller write over one of
 * them for an attempt to forge a pointer, unless there is CAP_PERFMON.
 */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define WORD(first, second) ((__u64)(first) | (__u64)(second) << 32)
#define PROTOCOL(protocol) ((__u32)(protocol))
#else
#define WORD(first, second) ((__u64)(first) << 32 | (__u64)(second))
#define PROTOCOL(protocol) ((__u32)(protocol) << 24)
#endif

static __always_inline struct ilb_ports *find4(void *map, const __be32 *address, __u8 protocol)
{
	union {
		struct ilb_key4 key;
		__u64 word;
	} key;

	key.word = WORD(*address, PROTOCOL(protocol));
	return bpf_map_lookup_elem(map, &key.key);
}

static __always_inline struct ilb_ports *find6(void *map, const struct in6_addr *address, __u8 protocol)
{
	const __be32 *part = address->s6_addr32;
	union {
		struct ilb_key6 key;
		__u64 words[3];
	} key;

	key.words[0] = WORD(part[0], part[1]);
	key.words[1] = WORD(part[2], part[3]);
	key.words[2] = WORD(PROTOCOL(protocol), 0);
	return bpf_map_lookup_elem(map, &key.key);
}

/* What the entry `set` of a packet's address and protocol, if there is one, makes of the packet with this port. */
static __always_inline enum finding claim(const struct ilb_ports *set, const struct ports *ports, __u16 port)
{
	if (!set)
		return NOT_OURS;
	/* Keeps this question apart from the next ones. Joined, they would let a processor that guesses the answer wrongly
	 * read from no entry, and verifiers before Linux 6.17 refuse that to whoever lacks CAP_PERFMON. */
	barrier();
	if (ports->later)
		return OUR_FRAGMENT;
	if (ports->needless)
		return OURS;
	if (!ports->present)
		return MALFORMED;
	return holds(set, port) ? OURS : NOT_OURS;
}

/* Whether the packet is sent to a closed address. */
static __always_inline int is_closed(const struct frame *frame)
{
	struct ethhdr *ethernet = frame->data;
	struct ilb_settings *set;
	union {
		struct ilb_address key;
		__u64 words[2];
	} key;
	__u32 zero = 0;

	set = bpf_map_lookup_elem(&settings, &zero);
	if (!set || !set->closed)
		return 0;
	if ((void *)(ethernet + 1) > frame->data_end)
		return 0;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = frame->data + ETH_HLEN;

		if ((void *)(ip + 1) > frame->data_end)
			return 0;
		key.words[0] = 0;
		key.words[1] = WORD(bpf_htonl(0xffff), ip->daddr);
		/* Else the compiler reads both families' last word at once, at an offset that is not constant: see `conclude`. */
		barrier();
	} else if (ethernet->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = frame->data + ETH_HLEN;
		const __be32 *part;

		if ((void *)(ip + 1) > frame->data_end)
			return 0;
		part = ip->daddr.s6_addr32;
		key.words[0] = WORD(part[0], part[1]);
		key.words[1] = WORD(part[2], part[3]);
	} else {
		return 0;
	}
	return bpf_map_lookup_elem(&closed, &key.key) != 0;
}

/* What stands for a packet's protocol in the keys. */
static __always_inline __u8 keyed(__u8 protocol, __u8 icmp)
{
	return has_ports(protocol) || protocol == icmp ? protocol : ILB_PROTOCOL_OTHERS;
}

/* The packet that an ICMP error is about: one that left from our addresses, or one sent to a VIP, or one that we sent to a server. */
static __always_inline enum finding examine_icmp_error(const struct frame *frame, const struct payload *outer)
{
	struct iphdr buffer, *ip;
	struct payload payload;
	struct ports ports;
	enum finding finding;
	__u32 offset = outer->offset + ICMP_ERROR_HEADER;
	__u8 protocol;
	int type;

	ip = read(frame, offset, &buffer, sizeof(buffer));
	if (!ip || !parse_ipv4(ip, offset, outer->length - ICMP_ERROR_HEADER, &payload))
		return MALFORMED;
	if (payload.protocol == IPPROTO_IGMP)
		return NOT_OURS;
	if (payload.protocol == IPPROTO_ICMP && !payload.later) {
		type = read_icmp_type(frame, &payload);
		if (type < 0)
			return MALFORMED;
		if (!is_icmp_query(type))
			return NOT_OURS;
	}
	if (find4(&destinations4, &ip->saddr, ILB_PROTOCOL_ERRORS))
		return OUR_ICMP_ERROR;
	ports = read_ports(frame, &payload);
	protocol = keyed(payload.protocol, IPPROTO_ICMP);
	finding = claim(find4(&destinations4, &ip->saddr, protocol), &ports, ports.source);
	if (finding == NOT_OURS)
		finding = claim(find4(&destinations4, &ip->daddr, protocol), &ports, ports.destination);
	if (finding == NOT_OURS)
		finding = claim(find4(&sources4, &ip->daddr, protocol), &ports, ports.destination);
	return finding == OURS || finding == OUR_FRAGMENT ? OUR_ICMP_ERROR : finding;
}

/* The packet that an ICMPv6 error is about: one that left from our addresses, or one sent to a VIP, or one that we sent to a server. */
static __always_inline enum finding examine_icmpv6_error(const struct frame *frame, const struct payload *outer)
{
	struct ipv6hdr buffer, *ip;
	struct payload payload;
	struct ports ports;
	enum finding finding;
	__u32 offset = outer->offset + ICMP_ERROR_HEADER;
	__u8 protocol;
	int type;

	ip = read(frame, offset, &buffer, sizeof(buffer));
	if (!ip || !parse_ipv6(frame, ip, offset, outer->length - ICMP_ERROR_HEADER, &payload))
		return MALFORMED;
	if (payload.protocol == IPPROTO_IGMP)
		return NOT_OURS;
	if (payload.protocol == IPPROTO_ICMPV6 && !payload.later) {
		type = read_icmp_type(frame, &payload);
		if (type < 0)
			return MALFORMED;
		if (!is_icmpv6_query(type))
			return NOT_OURS;
	}
	if (find6(&destinations6, &ip->saddr, ILB_PROTOCOL_ERRORS))
		return OUR_ICMP_ERROR;
	ports = read_ports(frame, &payload);
	protocol = keyed(payload.protocol, IPPROTO_ICMPV6);
	finding = claim(find6(&destinations6, &ip->saddr, protocol), &ports, ports.source);
	if (finding == NOT_OURS)
		finding = claim(find6(&destinations6, &ip->daddr, protocol), &ports, ports.destination);
	if (finding == NOT_OURS)
		finding = claim(find6(&sources6, &ip->daddr, protocol), &ports, ports.destination);
	return finding == OURS || finding == OUR_FRAGMENT ? OUR_ICMP_ERROR : finding;
}

static __always_inline enum finding examine_ipv4(const struct frame *frame)
{
	struct iphdr *ip = frame->data + ETH_HLEN;
	struct payload payload;
	struct ports ports;
	__u32 length;
	__u8 protocol;
	enum finding finding;
	int type;

	if ((void *)(ip + 1) > frame->data_end)
		return MALFORMED;
	length = bpf_ntohs(ip->tot_len);
	if (!is_as_long_as(frame, ETH_HLEN + length) || !parse_ipv4(ip, ETH_HLEN, length, &payload))
		return MALFORMED;
	if (payload.protocol == IPPROTO_IGMP)
		return NOT_OURS;
	if (payload.protocol == IPPROTO_ICMP && !payload.later) {
		type = read_icmp_type(frame, &payload);
		if (type < 0)
			return MALFORMED;
		if (is_icmp_error(type))
			return examine_icmp_error(frame, &payload);
		if (!is_icmp_query(type))
			return NOT_OURS;
	}
	ports = read_ports(frame, &payload);
	protocol = keyed(payload.protocol, IPPROTO_ICMP);
	finding = claim(find4(&destinations4, &ip->daddr, protocol), &ports, ports.destination);
	if (finding == NOT_OURS)
		finding = claim(find4(&sources4, &ip->saddr, protocol), &ports, ports.source);
	return finding == NOT_OURS && payload.protocol == PROTOCOL_VRRP ? OF_THE_LINK : finding;
}

static __always_inline enum finding examine_ipv6(const struct frame *frame)
{
	struct ipv6hdr *ip = frame->data + ETH_HLEN;
	struct payload payload;
	struct ports ports;
	__u32 length;
	__u8 protocol;
	enum finding finding;
	int type;

	if ((void *)(ip + 1) > frame->data_end)
		return MALFORMED;
	length = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (!is_as_long_as(frame, ETH_HLEN + length) || !parse_ipv6(frame, ip, ETH_HLEN, length, &payload))
		return MALFORMED;
	if (payload.protocol == IPPROTO_IGMP)
		return NOT_OURS;
	if (payload.protocol == IPPROTO_ICMPV6 && !payload.later) {
		type = read_icmp_type(frame, &payload);
		if (type < 0)
			return MALFORMED;
		if (is_icmpv6_error(type))
			return examine_icmpv6_error(frame, &payload);
		if (is_neighbour_discovery(type))
			return OF_THE_LINK;
		if (!is_icmpv6_query(type))
			return NOT_OURS;
	}
	ports = read_ports(frame, &payload);
	protocol = keyed(payload.protocol, IPPROTO_ICMPV6);
	finding = claim(find6(&destinations6, &ip->daddr, protocol), &ports, ports.destination);
	if (finding == NOT_OURS)
		finding = claim(find6(&sources6, &ip->saddr, protocol), &ports, ports.source);
	return finding == NOT_OURS && payload.protocol == PROTOCOL_VRRP ? OF_THE_LINK : finding;
}

static __always_inline enum finding examine(const struct frame *frame)
{
	struct ethhdr *ethernet = frame->data;
	enum finding finding;

	if ((void *)(ethernet + 1) > frame->data_end)
		return MALFORMED;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP))
		finding = examine_ipv4(frame);
	else if (ethernet->h_proto == bpf_htons(ETH_P_IPV6))
		finding = examine_ipv6(frame);
	else
		return OF_THE_LINK;
	if (ethernet->h_dest[0] & 1 && finding != OF_THE_LINK) /* multicast and broadcast: never ours */
		return NOT_OURS;
	return finding;
}

/* XDP_REDIRECT if a socket serves the queue of this frame, otherwise XDP_DROP: a kernel that saw packets of our services
 * would answer them with RST or port unreachable. */
static __always_inline int to_socket(struct xdp_md *ctx)
{
	__u32 ifindex = ctx->ingress_ifindex;
	__u32 queue = ctx->rx_queue_index;
	__u32 *slot = bpf_map_lookup_elem(&slots, &ifindex);

	if (!slot || queue >= ILB_MAX_QUEUES)
		return XDP_DROP;
	return bpf_redirect_map(&sockets, *slot * ILB_MAX_QUEUES + queue, XDP_DROP);
}

/* The one place where a finding becomes a verdict. */
static __always_inline int conclude(const struct frame *frame, enum finding finding)
{
	struct ilb_counters *counts;
	__u32 zero = 0;
	int verdict;

	counts = bpf_map_lookup_elem(&counters, &zero);
	if ((finding == NOT_OURS || finding == MALFORMED) && is_closed(frame)) {
		if (counts) {
			counts->closed++;
			counts->closed_bytes += length_of_packet(frame);
			barrier();
		}
		return XDP_DROP;
	}
	if (finding == NOT_OURS || finding == MALFORMED || finding == OF_THE_LINK) {
		if (counts) {
			counts->passed++;
			counts->malformed += finding == MALFORMED;
			/* Else the compiler shares the last addition with the one below, at an offset that is not
			 * constant, and that needs CAP_PERFMON. */
			barrier();
		}
		return XDP_PASS;
	}
	verdict = to_socket(frame->ctx);
	if (counts) {
		counts->redirected += verdict == XDP_REDIRECT;
		counts->unserved += verdict != XDP_REDIRECT;
		counts->fragments += finding == OUR_FRAGMENT;
		counts->icmp_errors += finding == OUR_ICMP_ERROR;
	}
	return verdict;
}

SEC("xdp")
int ilb_steer(struct xdp_md *ctx)
{
	struct frame frame = open_frame(ctx, 0);

	return conclude(&frame, examine(&frame));
}

/* The same for those who lack CAP_PERFMON: see parse.h. */
SEC("xdp")
int ilb_steer_h(struct xdp_md *ctx)
{
	struct frame frame = open_frame(ctx, 1);

	return conclude(&frame, examine(&frame));
}

char _license[] SEC("license") = "Dual MIT/GPL";
