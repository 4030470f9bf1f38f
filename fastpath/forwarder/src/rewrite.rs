//! Changing addresses and ports of a packet, with checksums carried along.

use crate::address::Addr;
use crate::checksum::{self, Delta};
use crate::packet::{Headers, Kind, Tuple, field, get16, protocol, put16};

/// Gives the packet new addresses and, where it has any, new ports. Everything else, a missing UDP checksum included,
/// stays as it is.
#[inline]
pub fn tuple(frame: &mut [u8], headers: &Headers, new: &Tuple) {
    let old = &headers.tuple;
    let mut addresses = Delta::NONE;
    addresses.address(old.src, new.src);
    addresses.address(old.dst, new.dst);
    set_addresses(frame, headers, new.src, new.dst, addresses);
    if headers.kind != Kind::Transport {
        return;
    }
    let mut delta = addresses;
    delta.word(old.sport, new.sport);
    delta.word(old.dport, new.dport);
    let l4 = headers.l4 as usize;
    put16(frame, l4 + field::SPORT, new.sport);
    put16(frame, l4 + field::DPORT, new.dport);
    fix_transport_checksum(frame, headers, delta);
}

#[inline(always)]
fn set_addresses(frame: &mut [u8], headers: &Headers, src: Addr, dst: Addr, delta: Delta) {
    let ip = &mut frame[headers.l3 as usize..];
    if headers.is_v4() {
        ip[field::IP4_SRC..field::IP4_SRC + 4].copy_from_slice(&src.v4_bytes());
        ip[field::IP4_DST..field::IP4_DST + 4].copy_from_slice(&dst.v4_bytes());
        let sum = get16(ip, field::IP4_CHECKSUM);
        put16(ip, field::IP4_CHECKSUM, delta.apply(sum));
    } else {
        ip[field::IP6_SRC..field::IP6_SRC + 16].copy_from_slice(&src.v6_bytes());
        ip[field::IP6_DST..field::IP6_DST + 16].copy_from_slice(&dst.v6_bytes());
    }
}

/// Corrects the transport checksum if the packet reaches that far; a packet quoted by an ICMP error may not.
#[inline(always)]
fn fix_transport_checksum(frame: &mut [u8], headers: &Headers, delta: Delta) {
    let l4 = headers.l4 as usize;
    match headers.tuple.protocol {
        protocol::TCP => {
            let at = l4 + field::TCP_CHECKSUM;
            if at + 2 <= headers.end as usize {
                let sum = get16(frame, at);
                put16(frame, at, delta.apply(sum));
            }
        }
        protocol::UDP => {
            let at = l4 + field::UDP_CHECKSUM;
            let sum = get16(frame, at);
            put16(frame, at, delta.apply_udp(sum));
        }
        _ => {}
    }
}

/// Takes one hop off the packet's life, as any router must (RFC 1812 section 5.3.1, RFC 8200 section 3). False if it
/// has none to give; the packet is unchanged then.
#[inline]
pub fn decrement_ttl(frame: &mut [u8], headers: &Headers) -> bool {
    let ip = &mut frame[headers.l3 as usize..];
    let at = if headers.is_v4() {
        field::IP4_TTL
    } else {
        field::IP6_HOP_LIMIT
    };
    if ip[at] <= 1 {
        return false;
    }
    if headers.is_v4() {
        let old = get16(ip, field::IP4_TTL);
        let mut delta = Delta::NONE;
        delta.word(old, old - 0x100);
        let sum = get16(ip, field::IP4_CHECKSUM);
        put16(ip, field::IP4_CHECKSUM, delta.apply(sum));
    }
    ip[at] -= 1;
    true
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
