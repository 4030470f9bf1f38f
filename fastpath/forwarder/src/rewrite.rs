//! Changing addresses and ports of a packet, with checksums carried along.

use crate::checksum::{self, Delta};
use crate::crc32c;
use crate::packet::{Headers, Kind, Ports, Tuple, field, get16, protocol, put16};

/// Whether a packet can get these ports. SCTP's checksum changes by the length of the whole packet, which no fragment
/// tells.
pub fn is_possible(headers: &Headers, new: &Tuple) -> bool {
    let ports = |tuple: &Tuple| (tuple.sport, tuple.dport);
    headers.tuple.protocol != protocol::SCTP
        || headers.kind != Kind::Transport
        || headers.fragment.is_none()
        || ports(&headers.tuple) == ports(new)
}

/// Gives the packet new addresses and, where it has any, new ports or a new identifier. Everything else, a missing UDP
/// checksum included, stays as it is.
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

/// Takes one hop off the packet's life and changes nothing else. False if it has none to give.
pub fn take_hop(frame: &mut [u8], headers: &Headers) -> bool {
    let Some(ttl) = decrement_ttl(frame, headers) else {
        return false;
    };
    if headers.is_v4() {
        let at = headers.l3 as usize + field::IP4_CHECKSUM;
        let sum = get16(frame, at);
        put16(frame, at, ttl.apply(sum));
    }
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
    match headers.tuple.protocol {
        protocol::TCP | protocol::UDP => {
            let ports = |tuple: &Tuple| (tuple.sport as u32) << 16 | tuple.dport as u32;
            delta.words(ports(old), ports(new));
            let l4 = &mut frame[headers.l4 as usize..headers.end as usize];
            l4[..4].copy_from_slice(&ports(new).to_be_bytes());
            match headers.tuple.protocol {
                protocol::TCP => fix_sum(l4, field::TCP_CHECKSUM, delta),
                _ => fix_udp_sum(l4, delta),
            }
        }
        _ => translate_rest(frame, headers, new, delta),
    }
}

/// Corrects a checksum if the packet reaches that far; a packet quoted by an ICMP error may not.
#[inline(always)]
fn fix_sum(l4: &mut [u8], at: usize, delta: Delta) {
    if l4.len() >= at + 2 {
        let sum = get16(l4, at);
        put16(l4, at, delta.apply(sum));
    }
}

#[inline(always)]
fn fix_udp_sum(l4: &mut [u8], delta: Delta) {
    if l4.len() >= field::UDP_CHECKSUM + 2 {
        let sum = get16(l4, field::UDP_CHECKSUM);
        put16(l4, field::UDP_CHECKSUM, delta.apply_udp(sum));
    }
}

/// What is neither TCP nor UDP. `addresses` is what changed in the pseudo-header.
#[inline(never)]
fn translate_rest(frame: &mut [u8], headers: &Headers, new: &Tuple, addresses: Delta) {
    let v4 = headers.is_v4();
    let claimed = claimed_len(frame, headers);
    let l4 = &mut frame[headers.l4 as usize..headers.end as usize];
    match headers.tuple.protocol {
        protocol::SCTP => sctp(l4, new, claimed),
        // Sums with a pseudo-header at the place where UDP has its own (RFC 3828 section 3.1, RFC 4340 section 9.1).
        protocol::DCCP => fix_sum(l4, field::UDP_CHECKSUM, addresses),
        protocol::UDP_LITE => fix_udp_sum(l4, addresses),
        number if Ports::of(number, v4) == Ports::Identifier => {
            // One of the two is 0. Only ICMPv6 has a pseudo-header (RFC 4443 section 2.3).
            let mut delta = if v4 { Delta::NONE } else { addresses };
            let id = new.sport | new.dport;
            delta.word(get16(l4, field::ICMP_ID), id);
            put16(l4, field::ICMP_ID, id);
            fix_sum(l4, field::ICMP_CHECKSUM, delta);
        }
        _ => {}
    }
}

/// No pseudo-header: only ports matter.
fn sctp(l4: &mut [u8], new: &Tuple, claimed: u16) {
    let mut ports = [0; 4];
    put16(&mut ports, field::SPORT, new.sport);
    put16(&mut ports, field::DPORT, new.dport);
    let Some((head, rest)) = l4.split_first_chunk_mut::<4>() else {
        return;
    };
    let old = std::mem::replace(head, ports);
    let at = field::SCTP_CHECKSUM - head.len();
    if old != ports
        && let Some(crc) = rest.get_mut(at..).and_then(|rest| rest.first_chunk_mut())
    {
        *crc = crc32c::change_of_head(*crc, old, ports, claimed);
    }
}

/// Bytes from the transport header on that the packet had when it was whole: more than there are where an ICMP error
/// quotes it.
fn claimed_len(frame: &[u8], headers: &Headers) -> u16 {
    let ip = &frame[headers.l3 as usize..];
    let total = if headers.is_v4() {
        get16(ip, field::IP4_TOTAL_LENGTH)
    } else {
        get16(ip, field::IP6_PAYLOAD_LENGTH).saturating_add(field::IP6_HEADER as u16)
    };
    total.saturating_sub(headers.l4 - headers.l3)
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

/// Whether the checksum of an IPv4 header is right; IPv6 has none. What is forwarded keeps its checksum, right or wrong, but
/// what is made anew would hide that the packet it is made of was damaged (RFC 1812 section 5.2.2).
pub fn ip_is_intact(frame: &[u8], headers: &Headers) -> bool {
    let l3 = headers.l3 as usize;
    let len = (frame[l3] & 0xf) as usize * 4;
    !headers.is_v4()
        || frame
            .get(l3..l3 + len)
            .is_some_and(|ip| checksum::of(ip, 0) == 0)
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

#[cfg(test)]
mod tests;
