// SPDX-License-Identifier: (MIT OR GPL-2.0-only)
/* A source and a sink of packets for the benchmarks, without a network card.
 *
 * The source runs by BPF_PROG_TEST_RUN with live frames: each run writes one whole UDP packet and redirects it out of
 * an interface. Pages are not reset between runs, so every header byte is written each time. The sink counts what
 * arrives, and drops it. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

struct settings {
	__u32 ifindex;      /* where the source sends */
	__u32 flows;        /* number of flows, drawn at random */
	__u32 client;       /* first client address, host order */
	__u32 vip;          /* first destination, host order */
	__u16 port;         /* destination port, host order */
	__u16 vips;         /* number of destinations, next to each other */
	__u8 destination[6];
	__u8 source[6];
};
_Static_assert(sizeof(struct settings) == 32, "the benchmark writes these bytes");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

/* 0: random state of the source; 1: packets that the sink saw. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

struct frame {
	__u8 destination[6];
	__u8 source[6];
	__be16 ethertype;
	__u8 version_and_length;
	__u8 tos;
	__be16 total;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__sum16 ip_sum;
	__be32 from;
	__be32 to;
	__be16 source_port;
	__be16 destination_port;
	__be16 udp_length;
	__sum16 udp_sum;
} __attribute__((packed));

#define FLOWS_PER_CLIENT 16384
#define FRAME_LENGTH 60

SEC("xdp")
int source(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 zero = 0;
	struct settings *set = bpf_map_lookup_elem(&settings, &zero);
	__u64 *state = bpf_map_lookup_elem(&counters, &zero);
	struct frame *f = data;

	if (!set || !state || data + FRAME_LENGTH > end)
		return XDP_ABORTED;
	/* Constants of Knuth's MMIX generator; its high bits are good. */
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	__u32 flow = ((*state >> 32) * set->flows) >> 32;

	__builtin_memcpy(f->destination, set->destination, 6);
	__builtin_memcpy(f->source, set->source, 6);
	f->ethertype = bpf_htons(0x0800);
	f->version_and_length = 0x45;
	f->tos = 0;
	f->total = bpf_htons(FRAME_LENGTH - 14);
	f->id = 0;
	f->fragment = bpf_htons(0x4000);
	f->ttl = 64;
	f->protocol = 17;
	__u32 from = set->client + flow / FLOWS_PER_CLIENT;
	f->from = bpf_htonl(from);
	__u32 to = set->vip;
	if (set->vips > 1)
		to += flow % set->vips;
	f->to = bpf_htonl(to);
	__u32 sum = 0x4500 + (FRAME_LENGTH - 14) + 0x4000 + (64 << 8) + 17 + (from >> 16) + (from & 0xffff) +
		    (to >> 16) + (to & 0xffff);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	f->ip_sum = bpf_htons(~sum);
	f->source_port = bpf_htons(1024 + flow % FLOWS_PER_CLIENT);
	f->destination_port = bpf_htons(set->port);
	f->udp_length = bpf_htons(FRAME_LENGTH - 34);
	f->udp_sum = 0;
	return bpf_redirect(set->ifindex, 0);
}

SEC("xdp")
int sink(struct xdp_md *ctx)
{
	__u32 one = 1;
	__u64 *seen = bpf_map_lookup_elem(&counters, &one);
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct frame *f = data;

	/* Only what the source made counts. */
	if (seen && data + sizeof(*f) <= end && f->ethertype == bpf_htons(0x0800) && f->protocol == 17)
		(*seen)++;
	return XDP_DROP;
}

SEC("xdp")
int pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
