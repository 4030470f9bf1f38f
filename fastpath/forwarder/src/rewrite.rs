//! Changing addresses and ports of a packet, with checksums carried along.

use crate::checksum::{self, Delta};
use crate::packet::{Headers, Kind, Tuple, field, get16, protocol, put16};

/// Gives the packet new addresses and, where it has any, new ports. Everything else, a missing UDP checksum included,
/// stays as it is.
pub fn tuple(frame: &mut [u8], headers: &Headers, new: &Tuple) {
    translate(frame, headers, new, Delta::NONE);
}

/// As [`tuple`], and takes one hop off the packet's life, as any router must (RFC 1812 section 5.3.1, RFC 8200
/// section 3). False if it has none to give; the packet is unchanged then.
#[inline(always)]
pub fn hop(frame: &mut [u8], headers: &Headers, new: &Tuple) -> bool {
    let Some(ttl) = decrement_ttl(frame, headers) else {
        return false;
    };
    translate(frame, headers, new, ttl);
    true
}

/// `header` is what changed in the IP header before.
#[inline(always)]
fn translate(frame: &mut [u8], headers: &Headers, new: &Tuple, mut header: Delta) {
    let old = &headers.tuple;
    let mut delta = Delta::NONE;
    delta.address(old.src, new.src);
    delta.address(old.dst, new.dst);
    let ip = &mut frame[headers.l3 as usize..];
    if headers.is_v4() {
        let ip = &mut ip[..field::IP4_HEADER];
        ip[field::IP4_SRC..field::IP4_SRC + 4].copy_from_slice(&new.src.v4_bytes());
        ip[field::IP4_DST..field::IP4_DST + 4].copy_from_slice(&new.dst.v4_bytes());
        header.add(delta);
        let sum = get16(ip, field::IP4_CHECKSUM);
        put16(ip, field::IP4_CHECKSUM, header.apply(sum));
    } else {
        let ip = &mut ip[..field::IP6_HEADER];
        ip[field::IP6_SRC..field::IP6_SRC + 16].copy_from_slice(&new.src.v6_bytes());
        ip[field::IP6_DST..field::IP6_DST + 16].copy_from_slice(&new.dst.v6_bytes());
    }
    if headers.kind != Kind::Transport {
        return;
    }
    let ports = |tuple: &Tuple| (tuple.sport as u32) << 16 | tuple.dport as u32;
    delta.words(ports(old), ports(new));
    let l4 = &mut frame[headers.l4 as usize..headers.end as usize];
    l4[..4].copy_from_slice(&ports(new).to_be_bytes());
    fix_transport_checksum(l4, headers.tuple.protocol, delta);
}

/// Corrects the transport checksum if the packet reaches that far; a packet quoted by an ICMP error may not.
#[inline(always)]
fn fix_transport_checksum(l4: &mut [u8], protocol: u8, delta: Delta) {
    match protocol {
        protocol::TCP if l4.len() >= field::TCP_CHECKSUM + 2 => {
            let sum = get16(l4, field::TCP_CHECKSUM);
            put16(l4, field::TCP_CHECKSUM, delta.apply(sum));
        }
        protocol::UDP => {
            let sum = get16(l4, field::UDP_CHECKSUM);
            put16(l4, field::UDP_CHECKSUM, delta.apply_udp(sum));
        }
        _ => {}
    }
}

/// What it changed in the header that the header's checksum covers; None if there is no hop to give.
#[inline(always)]
fn decrement_ttl(frame: &mut [u8], headers: &Headers) -> Option<Delta> {
    let ip = &mut frame[headers.l3 as usize..];
    let mut delta = Delta::NONE;
    if headers.is_v4() {
        let old = get16(ip, field::IP4_TTL);
        if old < 0x200 {
            return None;
        }
        put16(ip, field::IP4_TTL, old - 0x100);
        delta.word(old, old - 0x100);
    } else {
        if ip[field::IP6_HOP_LIMIT] <= 1 {
            return None;
        }
        ip[field::IP6_HOP_LIMIT] -= 1;
    }
    Some(delta)
}

/// Whether the checksum of an ICMP or ICMPv6 message is right.
pub fn icmp_is_intact(frame: &[u8], headers: &Headers) -> bool {
    icmp_checksum(frame, headers) == 0
}

/// Computes the checksum of an ICMP or ICMPv6 message anew. `src` and `dst` are the packet's addresses now.
pub fn recompute_icmp(frame: &mut [u8], headers: &Headers) {
    let at = headers.l4 as usize + field::ICMP_CHECKSUM;
    put16(frame, at, 0);
    let sum = icmp_checksum(frame, headers);
    put16(frame, at, sum);
}

fn icmp_checksum(frame: &[u8], headers: &Headers) -> u16 {
    let message = &frame[headers.l4 as usize..headers.end as usize];
    let initial = if headers.is_v4() {
        0
    } else {
        checksum::pseudo_header(
            headers.tuple.src,
            headers.tuple.dst,
            protocol::ICMPV6,
            message.len(),
        )
    };
    checksum::of(message, initial)
}
