/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* The program's maps. The library pins every one of them by the name it has here. */
#ifndef ILB_MAPS_H
#define ILB_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "shared.h"

/* Entries of the steering maps unless the library says otherwise. */
#define DEFAULT_ENTRIES 131072

/* (address, protocol) -> ports, of packets that are sent to us: VIPs, and source addresses of NAT and of tunnels. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DEFAULT_ENTRIES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ilb_key4);
	__type(value, struct ilb_ports);
} destinations4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DEFAULT_ENTRIES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ilb_key6);
	__type(value, struct ilb_ports);
} destinations6 SEC(".maps");

/* (address, protocol) -> ports, of packets that our servers send to their clients: the return path of HALF-NAT. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DEFAULT_ENTRIES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ilb_key4);
	__type(value, struct ilb_ports);
} sources4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DEFAULT_ENTRIES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ilb_key6);
	__type(value, struct ilb_ports);
} sources6 SEC(".maps");

/* Port sets of more than ILB_INLINE_RANGES ranges, made when needed. Never changed in place: a changed set is a new
 * bitmap with a new key, so that a packet sees the old set or the new one and nothing between. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DEFAULT_ENTRIES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct ilb_bitmap);
} bitmaps SEC(".maps");

/* Interface index -> slot of the interface. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ILB_MAX_INTERFACES);
	__type(key, __u32);
	__type(value, __u32);
} slots SEC(".maps");

/* slot * ILB_MAX_QUEUES + queue -> socket. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, ILB_MAX_INTERFACES * ILB_MAX_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

/* Addresses that take nothing for this node itself: what is sent to them and is not ours is dropped. Values mean nothing. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ILB_MAX_CLOSED);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ilb_address);
	__type(value, __u32);
} closed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ilb_settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ilb_counters);
} counters SEC(".maps");

#endif
