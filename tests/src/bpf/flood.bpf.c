// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/* A flood: SYNs, datagrams and fragments from random sources, in equal parts, by BPF_PROG_TEST_RUN with live frames.
 * As in bench.bpf.c, pages are not reset between runs, so every byte that counts is written each time. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

struct settings {
	__u32 ifindex;      /* where to send */
	__u32 sources;      /* first source address, host order; the low 24 bits are drawn at random */
	__u32 vip;          /* destination, host order */
	__u16 tcp_port;     /* destination of SYNs, host order */
	__u16 udp_port;     /* destination of datagrams and first fragments, host order */
	__u8 destination[6];
	__u8 source[6];
	__u8 padding[4];
};
_Static_assert(sizeof(struct settings) == 32, "the test writes these bytes");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

/* 0: random state; 1: packets that were sent. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct ip {
	__u8 version_and_length;
	__u8 tos;
	__be16 total;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__sum16 sum;
	__be32 from;
	__be32 to;
} __attribute__((packed));

struct frame {
	__u8 destination[6];
	__u8 source[6];
	__be16 ethertype;
	struct ip ip;
	__be16 l4[13];
} __attribute__((packed));
_Static_assert(sizeof(struct frame) == 60, "the smallest Ethernet frame");

static __always_inline __sum16 folded(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return bpf_htons(~sum);
}

SEC("xdp")
int flood(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 zero = 0, one = 1;
	struct settings *set = bpf_map_lookup_elem(&settings, &zero);
	__u64 *state = bpf_map_lookup_elem(&counters, &zero);
	__u64 *sent = bpf_map_lookup_elem(&counters, &one);
	struct frame *f = data;

	if (!set || !state || !sent || data + sizeof(*f) > end)
		return XDP_ABORTED;
	/* Constants of Knuth's MMIX generator; its high bits are good. */
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	__u32 random = *state >> 32;
	__u32 more = random * 2654435761u ^ (__u32)*state;
	__u32 from = set->sources + (random >> 8);
	__u16 port = 1024 + more % 60000, id = more >> 16;

	__builtin_memcpy(f->destination, set->destination, 6);
	__builtin_memcpy(f->source, set->source, 6);
	f->ethertype = bpf_htons(0x0800);
	__u16 total = 46, fragment = 0x4000;
	__u8 protocol = 17;
	__builtin_memset(f->l4, 0, sizeof(f->l4));
	f->l4[0] = bpf_htons(port);
	f->l4[1] = bpf_htons(set->udp_port);
	switch (random % 3) {
	case 0:
		protocol = 6;
		total = 40;
		f->l4[1] = bpf_htons(set->tcp_port);
		f->l4[2] = bpf_htons(id);
		f->l4[6] = bpf_htons(0x5002);
		f->l4[7] = bpf_htons(0xffff);
		f->l4[8] = folded((from >> 16) + (from & 0xffff) + (set->vip >> 16) + (set->vip & 0xffff) + 6 + 20 +
				  port + set->tcp_port + id + 0x5002 + 0xffff);
		break;
	case 1:
		f->l4[2] = bpf_htons(26);
		break;
	default:
		/* First fragments and later ones, 24 bytes each, hardly ever of one datagram. */
		total = 44;
		fragment = more & 1 ? 0x2000 : 0x2003;
		f->l4[2] = bpf_htons(72);
		break;
	}
	f->ip.version_and_length = 0x45;
	f->ip.tos = 0;
	f->ip.total = bpf_htons(total);
	f->ip.id = bpf_htons(id);
	f->ip.fragment = bpf_htons(fragment);
	f->ip.ttl = 64;
	f->ip.protocol = protocol;
	f->ip.from = bpf_htonl(from);
	f->ip.to = bpf_htonl(set->vip);
	f->ip.sum = folded(0x4500 + total + id + fragment + (64 << 8) + protocol + (from >> 16) + (from & 0xffff) +
			   (set->vip >> 16) + (set->vip & 0xffff));
	(*sent)++;
	return bpf_redirect(set->ifindex, 0);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
